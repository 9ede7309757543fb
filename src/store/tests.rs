//! The store as a whole: every write point fails once in every way, and what was promised is kept.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    disk::faulty::{Fault, FaultyDisk},
    *,
};
use crate::{
    mail::{Envelope, Recipient},
    verdict::Class,
};

/// More than one chunk, with every octet in it.
fn message() -> Vec<u8> {
    (0..150_000_u32).map(|n| (n % 251 + n / 70_000) as u8).collect()
}

fn held(len: usize) -> Held {
    let recipient = |address: &str| Recipient { address: address.to_owned(), ..Recipient::default() };
    Held {
        id: JournalId::new(),
        at: Timestamp::now(),
        listener: "mx".to_owned(),
        upstream: "exchange".to_owned(),
        envelope: Envelope {
            client: Some("192.0.2.7".parse().unwrap()),
            helo: Some("client.example".to_owned()),
            sender: Some("a@example.net".to_owned()),
            recipients: vec![recipient("Bob@Example.org"), recipient("eve@example.org")],
            ..Envelope::default()
        },
        received: "Received: from client.example\r\n".to_owned(),
        message_id: Some("<1@example.net>".to_owned()),
        subject: Some("line\nend, \u{1b}[31m and ünïcode".to_owned()),
        from: None,
        len: len as u64,
        class: Class::Certain,
        points: 12.3,
        required: 5.0,
        rules: vec![("GTUBE".to_owned(), 1000.0), ("ODD".to_owned(), -0.7)],
    }
}

fn row(id: &JournalId) -> Row {
    Row {
        id: id.clone(),
        at: Timestamp::from_microsecond(1_700_000_000_123_456).unwrap(),
        listener: "mx".to_owned(),
        protocol: "smtp".to_owned(),
        client: Some("2001:db8::1".parse().unwrap()),
        helo: Some("client.example".to_owned()),
        sender: Some(String::new()),
        recipients: vec!["a@example.org".to_owned(), "\"odd\\\"one\"@example.org".to_owned()],
        message_id: None,
        subject: Some("Subject, ünïcode".to_owned()),
        len: 4711,
        class: Class::Spam,
        points: 7.3,
        rules: vec!["A".to_owned(), "B".to_owned()],
        action: "stamp".to_owned(),
        custody: Some("upstream".to_owned()),
        reply: Some("250 2.0.0 ok".to_owned()),
        us: 412,
    }
}

struct Scene {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("store"), _folder: folder }
    }

    fn open(&self) -> Store {
        Store::open(&self.path).unwrap()
    }

    fn root(&self) -> &Path {
        self._folder.path()
    }

    fn index(&self) -> PathBuf {
        self.path.join("quarantine/index.db")
    }

    fn file(&self, id: &JournalId, ending: &str) -> PathBuf {
        self.path.join(format!("quarantine/{}/{id}.{ending}", id.folder()))
    }

    /// The names of all files of messages.
    fn files(&self) -> Vec<String> {
        let folders = fs::read_dir(self.path.join("quarantine")).unwrap().map(|entry| entry.unwrap().path());
        let files = folders.filter(|path| path.is_dir()).flat_map(|path| fs::read_dir(path).unwrap());
        files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn put(store: &Store) -> Held {
    let held = held(message().len());
    let receipt = store.quarantine().put(&held, &mut message().as_slice()).unwrap();
    assert_eq!(receipt.id(), &held.id);
    held
}

fn states(store: &Store) -> Vec<(JournalId, &'static str)> {
    let entries = store.quarantine().list(&Query::default()).unwrap();
    entries.into_iter().map(|entry| (entry.held.id, entry.status.state.as_str())).collect()
}

/// The message is listed with its facts, in one of `states`, and has its octets.
#[track_caller]
fn check_whole(store: &Store, held: &Held, states: &[&str], scene: &str) {
    let entry = store.quarantine().get(&held.id).unwrap_or_else(|error| panic!("{scene}: {error}"));
    assert_eq!(&entry.held, held, "{scene}");
    assert!(!entry.missing, "{scene}");
    let state = entry.status.state.as_str();
    assert!(states.contains(&state), "{scene}: {state} instead of {states:?}");
    assert!(store.quarantine().list(&Query::default()).unwrap().contains(&entry), "{scene}");
    let mut octets = Vec::new();
    store.quarantine().open_body(&held.id).unwrap().read_to_end(&mut octets).unwrap();
    assert!(octets == message(), "{scene}");
}

/// Lets every write point of `act` fail in every way, after `prepare` on a sound disk. `act` answers whether a promise
/// was made; the fault also comes right after its end. `check` looks at the store after it was opened again.
fn at_every_write_point<P>(
    prepare: impl Fn(&Store) -> P,
    act: impl Fn(&Store, &P) -> bool,
    check: impl Fn(&Store, &Scene, &P, bool, Fault, &str),
) {
    for fault in Fault::ALL {
        for point in 1.. {
            let scene = Scene::new();
            let prepared = prepare(&scene.open());
            let disk = FaultyDisk::new(scene.root()).unwrap();
            let store = Store::open_on(&scene.path, Arc::new(disk.clone())).unwrap();
            disk.arm(point, fault);
            let promised = act(&store, &prepared);
            let met = disk.fired();
            if !met {
                assert!(promised, "without a fault it succeeds");
                assert!(point > 3, "there are write points: {:?}", disk.points());
                disk.fail_now(fault);
            }
            drop(store);
            let words = format!("{fault:?} at {point}, {}", disk.points()[point - 1]);
            check(&scene.open(), &scene, &prepared, promised, fault, &words);
            if !met {
                break;
            }
        }
    }
}

#[test]
fn a_receipt_is_kept_whatever_fails() {
    at_every_write_point(
        |_| held(message().len()),
        |store, held| store.quarantine().put(held, &mut message().as_slice()).is_ok(),
        |store, scene, held, promised, fault, words| {
            let listed = store.quarantine().list(&Query::default()).unwrap();
            if promised || !listed.is_empty() {
                check_whole(store, held, &["held"], words);
                assert_eq!(store.quarantine().totals().unwrap().messages, 1, "{words}");
                assert_eq!(scene.files().len(), 1, "{words}");
            } else {
                assert_eq!(scene.files(), Vec::<String>::new(), "{words}");
                // A sender who tries again is served.
                let _ = store.quarantine().put(held, &mut message().as_slice()).unwrap();
            }
            if !promised && matches!(fault, Fault::Error | Fault::Late) {
                assert!(listed.is_empty(), "no copy is left by an error: {words}");
            }
        },
    );
}

#[test]
fn a_release_that_began_is_remembered_whatever_fails() {
    at_every_write_point(
        put,
        |store, held| store.quarantine().begin_release(&held.id).is_ok(),
        |store, _, held, promised, _, words| {
            let states = if promised { &["unconfirmed"][..] } else { &["held", "unconfirmed"] };
            check_whole(store, held, states, words);
            // It may begin again in any case.
            let release = store.quarantine().begin_release(&held.id).unwrap();
            store.quarantine().confirm_release(release, "250 ok").unwrap();
            check_whole(store, held, &["released"], words);
        },
    );
}

#[test]
fn a_release_that_ended_is_remembered_whatever_fails() {
    at_every_write_point(
        put,
        |store, held| {
            let release = store.quarantine().begin_release(&held.id);
            release.is_ok_and(|release| store.quarantine().confirm_release(release, "250 ok").is_ok())
        },
        |store, _, held, promised, _, words| {
            let states = if promised { &["released"][..] } else { &["held", "unconfirmed", "released"] };
            check_whole(store, held, states, words);
        },
    );
}

#[test]
fn a_failed_release_is_remembered_whatever_fails() {
    at_every_write_point(
        put,
        |store, held| {
            let release = store.quarantine().begin_release(&held.id);
            release.is_ok_and(|release| store.quarantine().fail_release(release, "550 no").is_ok())
        },
        |store, _, held, promised, _, words| {
            check_whole(store, held, if promised { &["held"][..] } else { &["held", "unconfirmed"] }, words);
            let status = store.quarantine().get(&held.id).unwrap().status;
            if promised {
                assert_eq!(status.last_error.as_deref(), Some("550 no"), "{words}");
            }
        },
    );
}

#[test]
fn a_deletion_is_whole_or_not_at_all_whatever_fails() {
    at_every_write_point(
        |store| {
            let held = put(store);
            let release = store.quarantine().begin_release(&held.id).unwrap();
            store.quarantine().fail_release(release, "550 no").unwrap();
            held
        },
        |store, held| store.quarantine().delete(&held.id).is_ok(),
        |store, scene, held, promised, _, words| {
            if store.quarantine().list(&Query::default()).unwrap().is_empty() {
                assert_eq!(scene.files(), Vec::<String>::new(), "{words}");
            } else {
                assert!(!promised, "{words}");
                check_whole(store, held, &["held"], words);
                store.quarantine().delete(&held.id).unwrap();
                assert_eq!(scene.files(), Vec::<String>::new(), "{words}");
            }
            assert!(matches!(store.quarantine().get(&held.id), Err(StoreError::NotFound(_))), "{words}");
        },
    );
}

#[test]
fn a_discard_is_kept_whatever_fails() {
    at_every_write_point(
        |_| JournalId::new(),
        |store, id| {
            let mut promised = true;
            for _ in 0..4 {
                promised = store.journal().write_discard(row(id)).is_ok();
            }
            promised
        },
        |store, _, id, promised, _, words| {
            let rows = store.journal().recent(10).unwrap();
            assert!(!promised || rows == [row(id)], "{words}");
        },
    );
}

#[test]
fn opening_survives_its_own_write_points() {
    for fault in Fault::ALL {
        for point in 1.. {
            let scene = Scene::new();
            let disk = FaultyDisk::new(scene.root()).unwrap();
            disk.arm(point, fault);
            let opened = Store::open_on(&scene.path, Arc::new(disk.clone()));
            let key = opened.as_ref().ok().map(|store| *store.stamp_key().as_bytes());
            let met = disk.fired();
            if !met {
                disk.fail_now(fault);
            }
            drop(opened);
            let words = format!("{fault:?} at {point}, {}", disk.points()[point - 1]);
            let store = scene.open();
            assert!(key.is_none_or(|key| key == *store.stamp_key().as_bytes()), "{words}");
            check_whole(&store, &put(&store), &["held"], &words);
            if !met {
                break;
            }
        }
    }
}

#[test]
fn an_index_that_is_lost_or_damaged_is_rebuilt_with_its_states() {
    let overwrite_pages = |path: &Path| {
        let mut octets = fs::read(path).unwrap();
        octets[4096..].fill(0xa5);
        fs::write(path, octets).unwrap();
    };
    type Damage<'a> = &'a dyn Fn(&Path);
    let damages: [(&str, Damage<'_>); 5] = [
        ("deleted", &|path| fs::remove_file(path).unwrap()),
        ("emptied", &|path| fs::write(path, "").unwrap()),
        ("no database", &|path| fs::write(path, vec![b'x'; 8192]).unwrap()),
        ("pages overwritten", &overwrite_pages),
        ("cut short", &|path| {
            let octets = fs::read(path).unwrap();
            fs::write(path, &octets[..octets.len() / 2]).unwrap();
        }),
    ];
    for (words, damage) in damages {
        let scene = Scene::new();
        let store = scene.open();
        let [waiting, failed, unconfirmed, released, deleted] = [(); 5].map(|()| put(&store));
        let quarantine = store.quarantine();
        quarantine.fail_release(quarantine.begin_release(&failed.id).unwrap(), "421 later").unwrap();
        drop(quarantine.begin_release(&unconfirmed.id).unwrap());
        quarantine.confirm_release(quarantine.begin_release(&released.id).unwrap(), "250 as 4711").unwrap();
        quarantine.delete(&deleted.id).unwrap();
        let before = (quarantine.list(&Query::default()).unwrap(), quarantine.totals().unwrap());
        let key = *store.stamp_key().as_bytes();
        store.journal().write(row(&waiting.id));
        drop(store);

        damage(&scene.index());
        let store = scene.open();
        let quarantine = store.quarantine();
        assert_eq!(
            (quarantine.list(&Query::default()).unwrap(), quarantine.totals().unwrap()),
            before,
            "{words}"
        );
        check_whole(&store, &waiting, &["held"], words);
        check_whole(&store, &failed, &["held"], words);
        check_whole(&store, &unconfirmed, &["unconfirmed"], words);
        check_whole(&store, &released, &["released"], words);
        assert_eq!(*store.stamp_key().as_bytes(), key, "{words}");
        assert_eq!(store.journal().recent(9).unwrap().len(), 1, "{words}");
    }
}

#[test]
fn an_index_is_not_moved_from_under_a_living_process() {
    let scene = Scene::new();
    let store = scene.open();
    let held = put(&store);
    fs::write(scene.index(), vec![b'x'; 8192]).unwrap();
    let error = Store::open(&scene.path).unwrap_err().to_string();
    assert!(error.contains("stop the gateway and start it again"), "{error}");
    drop(store);
    check_whole(&scene.open(), &held, &["held"], "opened alone");
}

#[test]
fn a_damaged_journal_is_moved_aside() {
    let scene = Scene::new();
    let held = put(&scene.open());
    fs::write(scene.path.join("journal.db"), vec![b'x'; 8192]).unwrap();
    let store = scene.open();
    assert_eq!(store.journal().recent(9).unwrap(), []);
    check_whole(&store, &held, &["held"], "beside a damaged journal");
    let names = fs::read_dir(&scene.path).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().starts_with("journal.db.damaged-")).count(), 1);
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let scene = Scene::new();
    drop(scene.open());
    let connection = rusqlite::Connection::open(scene.index()).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Store::open(&scene.path).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, known: 2, .. }), "{error}");
}

#[test]
fn what_was_changed_on_disk_is_not_handed_out() {
    for (words, change) in [
        (
            "an octet of the message",
            &(|octets: &mut Vec<u8>| *octets.last_mut().unwrap() ^= 1) as &dyn Fn(&mut _),
        ),
        ("cut short", &|octets: &mut Vec<u8>| octets.truncate(octets.len() - 1)),
        ("grown", &|octets: &mut Vec<u8>| octets.push(b'x')),
        ("a fact", &|octets: &mut Vec<u8>| {
            let at = octets.windows(8).position(|window| window == b"exchange").unwrap();
            octets[at] = b'X';
        }),
        ("the first line", &|octets: &mut Vec<u8>| octets[0] = b'G'),
        ("emptied", &|octets: &mut Vec<u8>| octets.clear()),
    ] {
        let scene = Scene::new();
        let store = scene.open();
        let held = put(&store);
        let path = scene.file(&held.id, "held");
        let mut octets = fs::read(&path).unwrap();
        change(&mut octets);
        fs::write(&path, octets).unwrap();
        let error = store.quarantine().open_body(&held.id).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{words}: {error}");
        // It does not keep the store from opening either, with or without its index.
        drop(store);
        fs::remove_file(scene.index()).unwrap();
        let store = scene.open();
        check_whole(&store, &put(&store), &["held"], words);
    }
}

#[test]
fn a_message_whose_file_is_gone_is_shown_as_missing() {
    let scene = Scene::new();
    let store = scene.open();
    let (lost, other) = (put(&store), put(&store));
    fs::remove_file(scene.file(&lost.id, "held")).unwrap();
    let check = |store: &Store, words| {
        assert!(store.quarantine().get(&lost.id).unwrap().missing, "{words}");
        for error in [
            store.quarantine().open_body(&lost.id).unwrap_err(),
            store.quarantine().begin_release(&lost.id).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Missing(_)), "{words}: {error}");
        }
        check_whole(store, &other, &["held"], words);
    };
    check(&store, "at once");
    drop(store);
    let store = scene.open();
    check(&store, "after opening");
    assert_eq!(store.quarantine().totals().unwrap().messages, 1);
    store.quarantine().delete(&lost.id).unwrap();
    assert_eq!(states(&store), [(other.id, "held")]);
}

#[test]
fn what_a_crash_left_is_cleared_up_but_not_under_a_living_process() {
    let scene = Scene::new();
    let store = scene.open();
    let held = put(&store);
    let other = JournalId::new();
    fs::create_dir_all(scene.file(&other, "held").parent().unwrap()).unwrap();
    for path in
        [scene.file(&other, "held.part"), scene.file(&held.id, "state.part"), scene.file(&other, "state")]
    {
        fs::write(path, "left").unwrap();
    }
    let second = scene.open();
    assert_eq!(scene.files().len(), 4, "another process may be writing these");
    drop((store, second));
    let store = scene.open();
    assert_eq!(scene.files(), [format!("{}.held", held.id)]);
    check_whole(&store, &held, &["held"], "after clearing up");
}

#[test]
fn a_message_whose_state_is_unreadable_may_have_been_delivered() {
    let scene = Scene::new();
    let held = put(&scene.open());
    for lose_index in [false, true] {
        if lose_index {
            fs::remove_file(scene.index()).unwrap();
        }
        fs::write(scene.file(&held.id, "state"), "\0\0\0\0").unwrap();
        let store = scene.open();
        check_whole(&store, &held, &["unconfirmed"], "unreadable state");
        let release = store.quarantine().begin_release(&held.id).unwrap();
        store.quarantine().fail_release(release, "550 no").unwrap();
        let status = store.quarantine().get(&held.id).unwrap().status;
        assert_eq!((status.state.as_str(), status.last_error.as_deref()), ("unconfirmed", Some("550 no")));
    }
}

#[test]
fn names_that_are_not_ours_are_left_alone() {
    let scene = Scene::new();
    let held = put(&scene.open());
    let elsewhere = scene.path.join("quarantine/zz");
    fs::create_dir(&elsewhere).unwrap();
    fs::copy(scene.file(&held.id, "held"), elsewhere.join(format!("{}.held", held.id))).unwrap();
    fs::write(elsewhere.join("notes.txt"), "an admin's").unwrap();
    let store = scene.open();
    assert_eq!(states(&store).len(), 1);
    assert_eq!(scene.files().len(), 3);
}

#[test]
fn a_put_that_is_not_what_was_announced_is_refused_without_a_trace() {
    struct Breaks;
    impl Read for Breaks {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
    let scene = Scene::new();
    let store = scene.open();
    let put = |len: usize, body: &mut dyn Read| {
        let error = store.quarantine().put(&held(len), body).unwrap_err().to_string();
        assert_eq!(scene.files(), Vec::<String>::new());
        assert_eq!(states(&store), []);
        error
    };
    assert_eq!(put(10, &mut &b"123456789"[..]), "the message has 9 octets where 10 were announced");
    assert_eq!(put(10, &mut &b"12345678901"[..]), "the message has 11 octets where 10 were announced");
    assert_eq!(put(5, &mut b"12345".chain(Breaks)), "the message could not be read: timed out");
    let mut long = held(0);
    long.subject = Some("x".repeat(5 << 20));
    assert!(matches!(store.quarantine().put(&long, &mut io::empty()), Err(StoreError::FactsTooLong { .. })));
    // An empty message and odd numbers are no fault.
    let odd = Held { points: f64::NAN, rules: vec![("R".to_owned(), f64::INFINITY)], ..held(0) };
    let _ = store.quarantine().put(&odd, &mut io::empty()).unwrap();
    let entry = store.quarantine().get(&odd.id).unwrap();
    assert_eq!((entry.held.points, entry.held.rules[0].1), (0.0, 0.0));
    assert_eq!(store.quarantine().open_body(&odd.id).unwrap().len(), 0);
    assert!(matches!(store.quarantine().put(&odd, &mut io::empty()), Err(StoreError::Exists(_))));
}

#[test]
fn two_processes_see_each_other() {
    let scene = Scene::new();
    let (one, two) = (scene.open(), scene.open());
    let held = put(&one);
    check_whole(&two, &held, &["held"], "put by the other");
    let release = two.quarantine().begin_release(&held.id).unwrap();
    assert!(matches!(one.quarantine().begin_release(&held.id), Err(StoreError::Busy(_))));
    assert!(matches!(one.quarantine().delete(&held.id), Err(StoreError::Busy(_))));
    check_whole(&one, &held, &["unconfirmed"], "begun by the other");
    two.quarantine().doubt_release(release, "connection lost after the final dot").unwrap();
    let entry = one.quarantine().get(&held.id).unwrap();
    assert_eq!(entry.status.state.as_str(), "unconfirmed");
    assert_eq!(entry.status.last_error.as_deref(), Some("connection lost after the final dot"));
    let release = one.quarantine().begin_release(&held.id).unwrap();
    one.quarantine().confirm_release(release, "250 ok").unwrap();
    assert!(matches!(two.quarantine().begin_release(&held.id), Err(StoreError::Released(_))));
    let entry = two.quarantine().get(&held.id).unwrap();
    assert_eq!((entry.status.attempts, entry.status.last_error), (2, None));
    assert_eq!(
        two.quarantine().totals().unwrap(),
        Totals { released_messages: 1, released_bytes: held.len, ..Totals::default() }
    );
    two.quarantine().delete(&held.id).unwrap();
    assert!(matches!(one.quarantine().get(&held.id), Err(StoreError::NotFound(_))));
    assert!(matches!(one.quarantine().delete(&held.id), Err(StoreError::NotFound(_))));
}

#[test]
fn two_hundred_messages_at_once_from_two_processes() {
    let scene = Scene::new();
    let stores = [scene.open(), scene.open()];
    let begun = std::time::Instant::now();
    std::thread::scope(|scope| {
        for n in 0..20 {
            let store = &stores[n % 2];
            scope.spawn(move || (0..10).for_each(|_| drop(put(store))));
        }
    });
    eprintln!("200 puts of 150 kB by 20 threads: {:?}", begun.elapsed());
    for store in &stores {
        assert_eq!(store.quarantine().totals().unwrap().messages, 200);
        let entries = store.quarantine().list(&Query { limit: 1000, ..Query::default() }).unwrap();
        assert_eq!(entries.len(), 200);
    }
    for entry in stores[0].quarantine().list(&Query { limit: 1000, ..Query::default() }).unwrap() {
        assert_eq!(stores[1].quarantine().open_body(&entry.held.id).unwrap().len(), message().len() as u64);
    }
}

#[test]
fn a_failed_release_does_not_settle_the_doubt_of_an_earlier_one() {
    let scene = Scene::new();
    let store = scene.open();
    let (held, quarantine) = (put(&store), store.quarantine());
    let end = |end: &dyn Fn(Release)| {
        end(quarantine.begin_release(&held.id).unwrap());
        quarantine.get(&held.id).unwrap().status.state.as_str()
    };
    assert_eq!(end(&|release| quarantine.fail_release(release, "421 later").unwrap()), "held");
    assert_eq!(end(&|release| quarantine.doubt_release(release, "connection lost").unwrap()), "unconfirmed");
    assert_eq!(end(&|release| quarantine.fail_release(release, "421 later").unwrap()), "unconfirmed");
    assert_eq!(end(&|release| quarantine.confirm_release(release, "250 ok").unwrap()), "released");
}

#[test]
fn releases_are_counted_for_good() {
    let scene = Scene::new();
    let store = scene.open();
    let quarantine = store.quarantine();
    let release = |held: &Held| {
        let begun = quarantine.begin_release(&held.id).unwrap();
        quarantine.confirm_release(begun, "250 ok").unwrap();
    };
    assert_eq!(quarantine.released().unwrap(), []);
    let (deleted, kept, doubted) = (put(&store), put(&store), put(&store));
    release(&deleted);
    release(&kept);
    quarantine.doubt_release(quarantine.begin_release(&doubted.id).unwrap(), "lost").unwrap();
    quarantine.delete(&deleted.id).unwrap();
    assert_eq!(quarantine.released().unwrap(), [(Class::Certain, 2)]);
    drop(store);
    let store = scene.open();
    assert_eq!(store.quarantine().released().unwrap(), [(Class::Certain, 2)]);
    drop(store);
    fs::remove_file(scene.index()).unwrap();
    assert_eq!(scene.open().quarantine().released().unwrap(), [(Class::Certain, 1)], "what is still kept");
}

#[test]
fn queries_choose_what_is_listed() {
    let scene = Scene::new();
    let store = scene.open();
    let mut oldest = held(0);
    oldest.at = "2026-01-01T00:00:00Z".parse().unwrap();
    oldest.class = Class::Malware;
    oldest.envelope.recipients.truncate(1);
    let _ = store.quarantine().put(&oldest, &mut io::empty()).unwrap();
    let (middle, newest) = (put(&store), put(&store));
    let _ = store.quarantine().begin_release(&middle.id).unwrap();
    let all = Query::default;
    for (words, query, wanted) in [
        ("all, newest first", all(), vec![&newest, &middle, &oldest]),
        ("limit", Query { limit: 1, ..all() }, vec![&newest]),
        ("class", Query { class: Some(Class::Malware), ..all() }, vec![&oldest]),
        ("state", Query { state: Some("unconfirmed".into()), ..all() }, vec![&middle]),
        ("recipient", Query { recipient: Some("EVE@".into()), ..all() }, vec![&newest, &middle]),
        ("recipient, no wildcard", Query { recipient: Some("%".into()), ..all() }, vec![]),
        ("since", Query { since: Some(middle.at), ..all() }, vec![&newest, &middle]),
    ] {
        let found: Vec<_> =
            store.quarantine().list(&query).unwrap().into_iter().map(|entry| entry.held.id).collect();
        assert_eq!(found, wanted.into_iter().map(|held| held.id.clone()).collect::<Vec<_>>(), "{words}");
    }
}

#[test]
fn a_message_is_found_by_either_end_of_its_id() {
    let scene = Scene::new();
    let store = scene.open();
    let (one, two) = (put(&store), put(&store));
    let find = |text: &str| store.quarantine().find(text);
    assert_eq!(find(one.id.as_str()).unwrap(), one.id);
    assert_eq!(find(two.id.short()).unwrap(), two.id);
    assert_eq!(find(&one.id.as_str()[28..]).unwrap(), one.id);
    assert!(matches!(find(&one.id.as_str()[..8]), Err(StoreError::Ambiguous(_))));
    assert!(matches!(find("ffffffffffff"), Err(StoreError::NotFound(_))));
    for text in ["", "1234567", "%%%%%%%%", "________", "../../../etc/passwd", "ABCDEF01", &"a".repeat(37)] {
        assert!(matches!(find(text), Err(StoreError::InvalidId(_))), "{text:?}");
    }
}

#[test]
fn the_journal_tells_what_it_was_told() {
    let scene = Scene::new();
    let store = scene.open();
    let rows: Vec<Row> = (0..3)
        .map(|n| {
            let mut row = row(&JournalId::new());
            row.at = Timestamp::from_microsecond(1_700_000_000_000_000 + n).unwrap();
            row
        })
        .collect();
    rows.iter().for_each(|row| store.journal().write(row.clone()));
    store.journal().flush().unwrap();
    assert_eq!(store.journal().recent(2).unwrap(), [rows[2].clone(), rows[1].clone()]);
    let discarded = store.journal().write_discard(rows[0].clone()).unwrap();
    assert_eq!(discarded.id(), &rows[0].id);
    assert_eq!(store.journal().recent(9).unwrap().len(), 3, "one row for one message");
    // What is queued when the store is closed is written.
    store.journal().write(row(&JournalId::new()));
    drop(store);
    let store = scene.open();
    assert_eq!(store.journal().recent(9).unwrap().len(), 4);
    assert_eq!(store.journal().dropped(), 0);
}

#[test]
fn long_texts_and_lists_are_cut_in_the_journal() {
    let scene = Scene::new();
    let store = scene.open();
    let mut long = row(&JournalId::new());
    long.subject = Some("ü".repeat(100_000));
    long.recipients = vec!["x".repeat(2000); 1000];
    long.points = f64::NAN;
    store.journal().write(long);
    store.journal().flush().unwrap();
    let kept = store.journal().recent(1).unwrap().remove(0);
    assert_eq!(kept.subject.unwrap(), "ü".repeat(1000));
    assert_eq!((kept.recipients.len(), kept.recipients[0].len()), (100, 1000));
    assert_eq!(kept.points, 0.0);
}

#[test]
fn rows_that_the_disk_refuses_or_the_queue_cannot_take_are_counted() {
    let scene = Scene::new();
    let disk = FaultyDisk::new(scene.root()).unwrap();
    let store = Store::open_on(&scene.path, Arc::new(disk.clone())).unwrap();
    disk.arm(1, Fault::Error);
    store.journal().write(row(&JournalId::new()));
    store.journal().flush().unwrap();
    assert_eq!(store.journal().dropped(), 1);
    // Another process keeps the database busy: the queue fills, and nobody waits for it.
    let blocker = rusqlite::Connection::open(scene.path.join("journal.db")).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = std::time::Instant::now();
    let row = row(&JournalId::new());
    (0..20_000).for_each(|_| store.journal().write(row.clone()));
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    assert!(store.journal().dropped() > 10_000);
    blocker.execute_batch("ROLLBACK").unwrap();
    store.journal().flush().unwrap();
}

#[test]
fn what_the_store_makes_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    fn check(path: &Path) {
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| check(&entry.unwrap().path()));
        }
    }
    let scene = Scene::new();
    let store = scene.open();
    let held = put(&store);
    let _ = store.quarantine().begin_release(&held.id).unwrap();
    check(&scene.path);
}

#[test]
fn what_root_makes_in_the_folder_of_another_user_belongs_to_that_user() {
    use std::os::unix::fs::{MetadataExt, chown};
    fn check(path: &Path) {
        assert_eq!(fs::metadata(path).unwrap().uid(), 4711, "{}", path.display());
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| check(&entry.unwrap().path()));
        }
    }
    let scene = Scene::new();
    fs::create_dir(&scene.path).unwrap();
    if chown(&scene.path, Some(4711), Some(4711)).is_err() {
        return; // Only root can try this.
    }
    let store = scene.open();
    let held = put(&store);
    let _ = store.quarantine().begin_release(&held.id).unwrap();
    check(&scene.path);
}

#[test]
fn the_file_of_a_message_explains_itself() {
    let scene = Scene::new();
    let held = put(&scene.open());
    let octets = fs::read(scene.file(&held.id, "held")).unwrap();
    let lines: Vec<&[u8]> = octets.splitn(4, |octet| *octet == b'\n').collect();
    assert_eq!(lines[0], b"gatepost held 1");
    let below = [lines[2], b"\n", lines[3]].concat();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &below);
    let digits: String = digest.as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(std::str::from_utf8(lines[1]).unwrap(), format!("sha256 {digits}"));
    assert_eq!(serde_json::from_slice::<Held>(lines[2]).unwrap(), held);
    assert!(lines[3] == message());
}
