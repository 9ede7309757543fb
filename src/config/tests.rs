//! The configuration's faults as a table: what is written, and everything that is said about it.

use super::*;

const L: &str =
    "listeners: [{name: mx, protocol: smtp, bind: '0.0.0.0:25', upstream: u, relay_domains: []}]\n";
const U: &str = "upstreams: {u: {protocol: smtp, servers: 'h:25'}}\n";
/// A pop3 listener to complete, and its upstream.
const P: &str = "upstreams: {p: {protocol: pop3, servers: 'h:110'}}\nlisteners:\n";

fn read(text: &str) -> Reading {
    let around = Surroundings {
        variable: &|name| match name {
            "PORT" => Some("2525".into()),
            "EMPTY" => Some(String::new()),
            "SECRET" => Some("hunter2".into()),
            _ => None,
        },
        file: &|path| match path.to_str() {
            Some("host.txt") => Ok("mx.example.org\n".into()),
            Some("bad.txt") => Ok("hunter2 !\n".into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        },
    };
    Config::read_within(text, "etc/gatepost.yaml", &around)
}

fn lines(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(|fault| format!("{}:{} {}", fault.line, fault.column, fault.problem)).collect()
}
/// Pieces of a file, and what is said of them: `line:column problem`, warnings after the faults.
const ROWS: &[(&[&str], &[&str])] = &[
    (&[L, U], &[]),
    // Shape.
    (&[""], &["1:1 the configuration has no `listeners`", "1:1 the configuration has no `upstreams`"]),
    (&["- 1\n- 2\n"], &["1:1 the configuration is a mapping, not a list"]),
    (&["listeners: 5\nupstreams: [a]\n"], &["1:12 `listeners` is `5`", "2:12 `upstreams` is a list"]),
    (&["listeners: []\n", U], &["1:12 `listeners` is an empty list"]),
    (
        &[L, U, "upstream: 1\nlisterns: 2\nkubernetes: 3\n"],
        &["3:1 unknown key `upstream`", "4:1 unknown key `listerns`", "5:1 unknown key `kubernetes`"],
    ),
    (&[L, U, "upstreams: {}\n"], &["3:1 `upstreams` is given twice"]),
    (
        &[L, "upstreams: {u: {protocol: smtp, servers: 'h:25'}, u: {protocol: smtp, servers: 'h:26'}}\n"],
        &["2:51 `u` is given twice"],
    ),
    (
        &[L, "upstreams: {u: {protocol: smtp, servers: 'h:25', servers: 'g:25'}}\n"],
        &["2:50 `servers` is given twice"],
    ),
    (
        &["listeners:\n- name: a\n  protcol: smtp\n  bind: 25\n  tls: yes\n", U],
        &[
            "2:3 a listener has no `upstream`",
            "3:3 unknown key `protcol`",
            "4:9 `bind` is `25`",
            "5:8 `tls` is `yes`",
        ],
    ),
    (
        &["listeners:\n- {}\n-\n- x\n", U],
        &[
            "2:3 a listener has no `name`",
            "2:3 a listener has no `protocol`",
            "2:3 a listener has no `bind`",
            "2:3 a listener has no `upstream`",
            "3:2 a listener has no `name`",
            "3:2 a listener has no `protocol`",
            "3:2 a listener has no `bind`",
            "3:2 a listener has no `upstream`",
            "4:3 `listeners` is `x`",
        ],
    ),
    (&[L, "upstreams:\n  u:\n"], &["3:3 an upstream has no `protocol`", "3:3 an upstream has no `servers`"]),
    (
        &[L, "upstreams: {'a b': {protocol: smtp, servers: [h]}, u: {protocol: smpt, servers: []}}\n"],
        &[
            "2:13 `a b` cannot be a name",
            "2:47 `servers` is `h`",
            "2:66 `protocol` cannot be `smpt`",
            "2:81 `servers` is an empty list",
            "warning: 2:13 no listener uses the upstream `a b`",
        ],
    ),
    (&[L, U, "hostname: mx_1.example.org\n"], &["3:11 `hostname` is `mx_1.example.org`"]),
    (
        &[L, U, "hostname: [mx]\nlog: {format: xml, level: inf}\n"],
        &["3:11 `hostname` is a list", "4:15 `format` cannot be `xml`", "4:27 `level` cannot be `inf`"],
    ),
    (&[L, U, "hostname:\n"], &["3:9 `hostname` has no value"]),
    (&[L, U, "metrics: {bind: 9525, rules: top-0}\n"], &["3:17 `bind` is `9525`", "3:30 `rules` is `top-0`"]),
    (&[L, U, "metrics: {}\n"], &["3:10 `metrics` has no `bind`"]),
    (
        &[
            L,
            U,
            "limits: {sessions: 0, message_bytes: 5s, drain_timeout: 30, recipients: many, judged_bites: 1}\n",
        ],
        &[
            "3:20 `sessions` is `0`",
            "3:38 `message_bytes` is `5s`",
            "3:57 `drain_timeout` is `30`",
            "3:73 `recipients` is `many`",
            "3:79 unknown key `judged_bites`",
        ],
    ),
    (
        &[L, U, "limits: {sessions: -1, message_bytes: 0, drain_timeout: 0s}\n"],
        &["3:20 `sessions` is `-1`", "3:39 `message_bytes` is `0`", "3:57 `drain_timeout` is `0s`"],
    ),
    (
        &[L, U, "trusted: {hops: [10.0.0.0/40, fe80::/10, lan], authserv_id: 'a b'}\n"],
        &[
            "3:18 `hops` is `10.0.0.0/40`",
            "3:42 `hops` is `lan`",
            "3:61 `authserv_id` is `a b`",
            "warning: 3:11 `hops` is not supported by this version yet",
        ],
    ),
    (&[L, U, "store: {path: ''}\n"], &["3:15 `path` is ``"]),
    (
        &["listeners:\n- {name: mx, protocol: smtp, bind: [::]:25, upstream: u, relay_domains: []}\n", U],
        &["2:40 not YAML: while parsing a flow mapping, did not find expected ',' or '}'"],
    ),
    (
        &[
            "listeners:\n- {name: mx, protocol: smtp, bind: [localhost:25, ':25', 0.0.0.0:0], upstream: u, relay_domains: []}\n",
            U,
        ],
        &["2:37 `bind` is `localhost:25`", "2:51 `bind` is `:25`", "2:58 `bind` is `0.0.0.0:0`"],
    ),
    // Syntax.
    (&["listeners: [\n"], &["1:12 not YAML: unclosed bracket '['"]),
    (&["a: 1\n b: 2\n"], &["2:3 not YAML: mapping values are not allowed in this context"]),
    (&["a: \"x\n"], &["1:4 not YAML: unclosed quote"]),
    (&["subject: @x\n"], &["1:10 not YAML: unexpected character: `@'"]),
    (&[L, U, "---\n", L], &["3:1 a second document"]),
    (&["a: *nobody\n"], &["1:4 not YAML: while parsing node, found unknown anchor"]),
    (&["? [a]\n: 1\n", L, U], &["1:3 a key that is not a word"]),
    (
        &["a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n"],
        &["1:35 nested more than 32 deep"],
    ),
    // Variables, files and tags.
    (&[L, U, "hostname: ${HOST}\n"], &["3:11 the environment has no variable HOST"]),
    (&[L, U, "hostname: ${HOST:-mx.example.org}\nmetrics: {bind: '127.0.0.1:${PORT}'}\n"], &[]),
    (&[L, U, "hostname: ${EMPTY:-mx.example.org}\n"], &[]),
    (&[L, U, "hostname: ${HOST\n"], &["3:11 `${HOST` opens `${` and does not close it"]),
    (&[L, U, "hostname: ${SECRET} x\n"], &["3:11 `hostname` is `${SECRET} x`"]),
    (&[L, U, "hostname: $${HOST}\n"], &["3:11 `hostname` is `$${HOST}`"]),
    (&[L, U, "hostname: !file host.txt\n"], &[]),
    (&[L, U, "hostname: !file bad.txt\n"], &["3:17 `hostname` is `!file bad.txt`"]),
    (&[L, U, "hostname: !file none.txt\n"], &["3:17 `!file none.txt` cannot be read: entity not found"]),
    (
        &[L, U, "hostname: !secret x\nlog: !file {}\n"],
        &["3:19 unknown tag `!secret`", "4:12 `!file` before a list or a mapping"],
    ),
    // Not built yet.
    (
        &[
            "listeners: [{name: mx, protocol: lmtp, bind: '0.0.0.0:24', upstream: u, transparent: tproxy, mode: observe,\n  accept_proxy_protocol: {from: [10.0.0.0/8]}, recipients: []}]\n",
            "upstreams: {u: {protocol: lmtp, servers: 'h:24', client_address: xclient}}\n",
        ],
        &[
            "1:34 `protocol: lmtp` is not supported by this version yet",
            "1:86 `transparent: tproxy` is not supported by this version yet",
            "1:100 `mode: observe` is not supported by this version yet",
            "2:3 `accept_proxy_protocol` is not supported by this version yet",
            "2:48 `recipients` is not supported by this version yet",
            "3:27 `protocol: lmtp` is not supported by this version yet",
            "3:66 `client_address: xclient` is not supported by this version yet",
        ],
    ),
    (
        &[L, U, "store: {kind: shared, redis: 'rediss://x', objects: 's3://y'}\n"],
        &[
            "3:15 `kind: shared` is not supported by this version yet",
            "3:23 `redis` is not supported by this version yet",
            "3:44 `objects` is not supported by this version yet",
        ],
    ),
    (
        &[
            "listeners: [{name: mx, protocol: smtp, bind: '0.0.0.0:25', upstream: u, relay_domains: [], transparent: off, mode: enforce}]\n",
            "upstreams: {u: {protocol: smtp, servers: 'h:25', client_address: none}}\n",
            "store: {kind: embedded}\n",
        ],
        &[],
    ),
    (
        &[
            "listeners: [{name: mx, protocol: smtp, bind: '0.0.0.0:25', upstream: u, relay_domains: [], transparent: tproxi, mode: obey}]\n",
            U,
        ],
        &["1:105 `transparent` cannot be `tproxi`", "1:119 `mode` cannot be `obey`"],
    ),
    // Policies.
    (
        &[
            L,
            U,
            "policies: {default: {pop3: {spam: reject, certain: move, ham: laeve}, imap: {spam: reject, malware: quarantine}, smtp: {spam: move, ham: keep}}}\n",
        ],
        &[
            "3:35 `spam: reject`: a POP3 policy cannot do that",
            "3:52 `certain: move`: a POP3 policy cannot do that",
            "3:63 `ham` cannot be `laeve`",
            "3:84 `spam: reject`: an IMAP policy cannot do that",
            "3:101 `malware: quarantine`: an IMAP policy cannot do that",
            "3:127 `spam: move`: an SMTP policy cannot do that",
            "3:138 `ham` cannot be `keep`",
        ],
    ),
    (
        &[L, U, "policies: {default: {thresholds: {unsure: 6}}}\n"],
        &["3:43 `unsure` begins at 6.0, above `spam` at 5.0"],
    ),
    (
        &[L, U, "policies: {default: {thresholds: {spam: 12, unsure: 13}}}\n"],
        &[
            "3:41 `unsure` begins at 13.0, above `spam` at 12.0",
            "3:41 `spam` begins at 12.0, above `certain` at 10.0",
        ],
    ),
    (
        &[L, U, "policies: {default: {thresholds: {spam: .inf, certain: high}}}\n"],
        &["3:41 `spam` is `.inf`", "3:56 `certain` is `high`"],
    ),
    (
        &[
            L,
            U,
            "policies: {default: {stamp: {subject: \"a\\nb\", headers: on}}, mild: {stamp: {subject: 'Спам '}}, odd: {stamp: {subject: ''}}}\n",
        ],
        &[
            "3:39 `subject` is `a\\nb`",
            "3:56 `headers` is `on`",
            "3:86 `subject` is `Спам `",
            "3:120 `subject` is ``",
        ],
    ),
    (
        &[
            L,
            U,
            "policies: {default: {imap: {deadline: 5, watch: [INBOX, ''], first_contact: few, create: 'no', jnk_mailbox: x}}}\n",
        ],
        &[
            "3:39 `deadline` is `5`",
            "3:57 `watch` is ``",
            "3:77 `first_contact` is `few`",
            "3:90 `create` is `no`",
            "3:96 unknown key `jnk_mailbox`",
        ],
    ),
    (&[L, U, "policies: {default: , mild: 5}\n"], &["3:29 a policy is a mapping, not `5`"]),
    // Names that refer to each other.
    (
        &[
            "listeners: [{name: mx, protocol: smtp, bind: '0.0.0.0:25', upstream: exchage, relay_domains: [], policy: mlid}]\n",
            "upstreams: {exchange: {protocol: smtp, servers: 'h:25'}}\npolicies: {mild: {}}\n",
        ],
        &["1:70 no upstream is called `exchage`", "1:106 no policy is called `mlid`"],
    ),
    (
        &[
            "listeners: [{name: mx, protocol: smtp, bind: '0.0.0.0:25', upstream: zzz, relay_domains: []}]\n",
            "upstreams: {}\n",
        ],
        &["1:70 no upstream is called `zzz`"],
    ),
    (
        &["listeners: [{name: mx, protocol: imap, bind: '0.0.0.0:25', upstream: u}]\n", U],
        &["1:70 the listener speaks imap, its upstream `u` speaks smtp"],
    ),
    (
        &[
            "listeners:\n- {name: a, protocol: smtp, bind: '0.0.0.0:25', upstream: u, relay_domains: []}\n- {name: a, protocol: smtp, bind: '0.0.0.0:26', upstream: u, relay_domains: []}\n",
            U,
        ],
        &["3:10 two listeners are called `a`"],
    ),
    // Ports.
    (
        &[
            P,
            "- {name: a, protocol: pop3, bind: ['0.0.0.0:110', '[::]:110'], upstream: p}\n- {name: b, protocol: pop3, bind: '10.0.0.1:110', upstream: p}\n",
        ],
        &["4:35 `10.0.0.1:110` is within `0.0.0.0:110`, bound by the listener `a` in line 3"],
    ),
    (
        &[
            P,
            "- {name: a, protocol: pop3, bind: '127.0.0.1:110', upstream: p}\n- {name: b, protocol: pop3, bind: '127.0.0.2:110', upstream: p}\n",
        ],
        &[],
    ),
    (
        &[P, "- {name: a, protocol: pop3, bind: ['[::1]:110', '[::]:110', '[::1]:110'], upstream: p}\n"],
        &[
            "3:49 `[::]:110` is within `[::1]:110`, bound by the listener `a` in line 3",
            "3:61 `[::1]:110` is bound by the listener `a` in line 3",
        ],
    ),
    (
        &[
            P,
            "- {name: a, protocol: pop3, bind: '127.0.0.1:9525', upstream: p}\nmetrics: {bind: '0.0.0.0:9525'}\n",
        ],
        &["4:17 `0.0.0.0:9525` is within `127.0.0.1:9525`, bound by the listener `a` in line 3"],
    ),
    // TLS.
    (
        &[P, "- {name: a, protocol: pop3, bind: '0.0.0.0:110', upstream: p, tls: {mode: starttls}}\n"],
        &["3:75 `mode: starttls` without certificates"],
    ),
    (
        &[
            P,
            "- {name: a, protocol: pop3, bind: '0.0.0.0:110', upstream: p, tls: {mode: implicit, certificates: []}}\n",
        ],
        &["3:75 `mode: implicit` without certificates"],
    ),
    (
        &[
            P,
            "- {name: a, protocol: pop3, bind: '0.0.0.0:110', upstream: p, tls: {certificates: [{cert: a.pem}]}}\n",
        ],
        &["3:68 the TLS of a listener has no `mode`", "3:84 a certificate has no `key`"],
    ),
    (
        &[
            P,
            "- {name: a, protocol: pop3, bind: '0.0.0.0:110', upstream: p, tls: {mode: off, certificates: [{cert: a.pem, key: a.key}]}}\n",
        ],
        &["warning: 3:94 certificates are not used with `mode: off`"],
    ),
    (
        &[
            L,
            "upstreams: {u: {protocol: smtp, servers: 'h:25', tls: {mode: tls, verify: no, server_name: 'a b'}}}\n",
        ],
        &["2:62 `mode` cannot be `tls`", "2:75 `verify` cannot be `no`", "2:92 `server_name` is `a b`"],
    ),
    // Relay domains.
    (
        &["listeners:\n- name: mx\n  protocol: smtp\n  bind: '0.0.0.0:25'\n  upstream: u\n", U],
        &["2:3 the inbound listener `mx` does not say its `relay_domains`"],
    ),
    (
        &[
            "listeners: [{name: mx, protocol: smtp, bind: '0.0.0.0:25', upstream: u, relay_domains: [example.org, '*.example.org', '*', '@example.org', a..b, 10.0.0.1, пример.рф, '*.*.org']}]\n",
            U,
        ],
        &[
            "1:119 `relay_domains` is `*`",
            "1:124 `relay_domains` is `@example.org`",
            "1:140 `relay_domains` is `a..b`",
            "1:146 `relay_domains` is `10.0.0.1`",
            "1:167 `relay_domains` is `*.*.org`",
        ],
    ),
    (
        &[
            "listeners: [{name: mx, protocol: smtp, bind: '0.0.0.0:25', upstream: u, direction: outbound, relay_domains: [example.org]}]\n",
            U,
        ],
        &[
            "1:84 `direction: outbound` is not supported by this version yet",
            "1:109 `relay_domains` on an outbound listener",
        ],
    ),
    (
        &[
            P,
            "- {name: a, protocol: pop3, bind: '0.0.0.0:110', upstream: p, relay_domains: [], direction: inbound}\n",
        ],
        &["3:78 `relay_domains` has a meaning for SMTP only", "3:93 `direction` has a meaning for SMTP only"],
    ),
    (
        &[L, U, "rules: {spamassassin: [local.cf]}\ntrusted: {hops: [lan]}\nadmin: {bind: 5}\n"],
        &[
            "3:9 `spamassassin` is not supported by this version yet",
            "4:18 `hops` is `lan`",
            "warning: 4:11 `hops` is not supported by this version yet",
            "warning: 5:1 `admin` is not supported by this version yet",
        ],
    ),
    // What stands in its own way.
    (
        &[
            "listeners:\n- {name: a, protocol: pop3, bind: ['0.0.0.0:110', '[::1]:110'], upstream: p}\n",
            "upstreams: {p: {protocol: pop3, servers: ['127.0.0.1:110', '[::1]:110', '10.0.0.1:110', '127.0.0.1:111']}}\n",
        ],
        &[
            "3:43 `127.0.0.1:110` leads back to the listener `a` in line 2",
            "3:60 `[::1]:110` leads back to the listener `a` in line 2",
        ],
    ),
    (
        &[L, U, "limits: {message_bytes: 100, recipients: 99, imap_idle_timeout: 30m}\n"],
        &["warning: 3:25 `message_bytes` is less than 64 KiB", "warning: 3:42 `recipients` is less than 100"],
    ),
];

#[test]
fn every_fault_is_named_with_its_place() {
    for (pieces, expected) in ROWS {
        let text = pieces.concat();
        let reading = read(&text);
        let warnings = lines(&reading.warnings).into_iter().map(|warning| format!("warning: {warning}"));
        let said: Vec<_> = lines(&reading.faults).into_iter().chain(warnings).collect();
        assert_eq!(said, *expected, "\n{text}");
    }
}

#[test]
fn remedies_say_what_to_write() {
    for (pieces, remedy) in REMEDIES {
        let text = pieces.concat();
        let faults = read(&text).faults;
        assert_eq!(faults.first().map(|fault| fault.remedy.as_str()), Some(*remedy), "\n{text}");
    }
}

const REMEDIES: &[(&[&str], &str)] = &[
    (&[L, U, "metric: {}\n"], "did you mean `metrics`?"),
    (&[L, U, "log: {colour: red}\n"], "the keys of `log` are `format`, `level`"),
    (&[L, U, "log: json\n"], "write a mapping with the keys `format`, `level`"),
    (&[L, U, "log: {level: warning}\n"], "possible: `error`, `warn`, `info`, `debug`, `trace`"),
    (&[L, U, "limits: {drain_timeout: 30}\n"], "write a time span above zero such as `5s`, `5m` or `1h`"),
    (&[L, U, "metrics:\n"], "add `bind`: Where they are served, over plain HTTP."),
    (
        &[L, U, "hostname: [mx]\n"],
        "write a domain name such as `mx.example.org`; a text that begins with [ or { needs quotes",
    ),
    (
        &[L, U, "policies: {default: {pop3: {spam: move}}}\n"],
        "use `withhold`; possible here: `leave`, `stamp`, `withhold`",
    ),
    (
        &[L, U, "policies: {default: {smtp: {spam: rejct}}}\n"],
        "did you mean `reject`? possible: `deliver`, `stamp`, `quarantine`, `reject`, `defer`, `discard`",
    ),
    (&[L, U, "store: {kind: shared}\n"], "use `embedded`"),
    (&[L, U, "hostname: ${HOST}\n"], "set HOST, or write `${HOST:-default}`"),
    (&[L, "upstreams: {ux: {protocol: smtp, servers: 'h:25'}}\n"], "did you mean `ux`?"),
    (
        &[
            L,
            "upstreams: {one: {protocol: smtp, servers: 'h:25'}, two: {protocol: imap, servers: 'h:143'}}\n",
        ],
        "there are `one`, `two`",
    ),
];

#[test]
fn values_become_what_they_say() {
    let text = [
        "hostname: Пример.РФ\n",
        "listeners: [{name: mx, protocol: smtp, bind: '[::]:25', upstream: u, relay_domains: example.org, policy: mild,\n",
        "  tls: {mode: starttls, certificates: [{cert: mx.pem, key: /keys/mx.key}]}}]\n",
        "upstreams: {u: {protocol: smtp, servers: ['h:25', '[::1]:26'], tls: {mode: implicit, verify: ca, ca: ca.pem}}}\n",
        "policies: {mild: {thresholds: {spam: 7}, smtp: {certain: reject}, imap: {junk_mailbox: Spam, deadline: 2s},\n",
        "  stamp: {subject: '[SPAM] ', received: false}}}\n",
        "metrics: {bind: '127.0.0.1:${PORT}', rules: top-5}\nlog: {format: json}\ntrusted: {hops: 10.0.0.0/8}\n",
        "limits: {message_bytes: 10M, imap_idle_timeout: 1h}\nrules: {paths: [rules/]}\nstore: {path: ../store}\n",
    ]
    .concat();
    let reading = read(&text);
    assert_eq!(lines(&reading.faults), Vec::<String>::new());
    let config = reading.config;
    assert_eq!(config.hostname.as_deref(), Some("xn--e1afmkfd.xn--p1ai"));
    let listener = &config.listeners[0];
    assert_eq!(listener.bind, ["[::]:25".parse().unwrap()]);
    assert_eq!(listener.tls.mode, TlsMode::StartTls);
    let files = Certificate { cert: "etc/mx.pem".into(), key: "/keys/mx.key".into() };
    assert_eq!(listener.tls.certificates, [files]);
    assert_eq!(listener.relay_domains, [DomainPattern::Exact("example.org".into())]);
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.servers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["h:25", "[::1]:26"]);
    assert_eq!((upstream.tls.mode, upstream.tls.verify), (TlsMode::Implicit, Verify::Ca));
    assert_eq!(upstream.tls.ca.as_deref(), Some(Path::new("etc/ca.pem")));
    let [mild, default] = &config.policies[..] else { panic!("two policies") };
    assert_eq!((mild.set.name.as_str(), default.set.name.as_str()), ("mild", "default"));
    assert_eq!(mild.set.thresholds.spam, 7.0);
    assert_eq!(mild.set.smtp.certain, crate::policy::Action::Reject);
    assert_eq!(mild.set.stamp.subject.as_deref(), Some("[SPAM] "));
    assert!(!mild.set.stamp.received && mild.set.stamp.headers);
    assert_eq!(mild.mailbox.junk_mailbox.as_deref(), Some("Spam"));
    assert_eq!(mild.mailbox.deadline, Duration::from_secs(2));
    assert_eq!(config.metrics.as_ref().map(|metrics| metrics.rules), Some(RuleSeries::Top(5)));
    assert_eq!(config.limits.message_bytes, 10 << 20);
    assert_eq!(config.rules.paths, [PathBuf::from("etc/rules/")]);
    assert_eq!(config.store.path, PathBuf::from("etc/../store"));
}

#[test]
fn what_is_not_written_has_its_default() {
    let config = read(&[L, U].concat()).config;
    assert_eq!(config.limits, Limits::default());
    let default = &config.policies[0];
    assert_eq!(*default.set, PolicySet::new("default"));
    let filing = MailboxFiling {
        junk_mailbox: None,
        watch: vec!["INBOX".into()],
        deadline: Duration::from_secs(5),
        first_contact: 200,
        create: false,
    };
    assert_eq!(default.mailbox, filing);
    assert_eq!(config.store.path, PathBuf::from("/var/lib/gatepost"));
    assert!(config.metrics.is_none() && config.hostname.is_none() && config.rules.paths.is_empty());
}

#[test]
fn secrets_do_not_show() {
    let reading = read(&[L, U, "hostname: !file bad.txt\nlog: {level: '${SECRET}'}\n"].concat());
    let said = format!("{reading:?} {:?}", reading.faults);
    assert_eq!(reading.faults.len(), 2);
    assert!(!said.contains("hunter2"), "{said}");
}

/// A free name in `folder` with this text.
fn written(folder: &Path, name: &str, text: &str) -> String {
    fs::write(folder.join(name), text).unwrap();
    name.to_owned()
}

/// A certificate valid from and to these years, and its key.
fn certificate(from: i32, to: i32) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["mx.example.org".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A certificate, its key, authorities, rules, a store.
type Names<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

#[test]
fn files_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (cert, key) = certificate(2020, 2090);
    let (old, old_key) = certificate(2000, 2001);
    let (future, future_key) = certificate(2080, 2090);
    for (name, text) in [
        ("a.pem", &cert),
        ("a.key", &key),
        ("old.pem", &old),
        ("old.key", &old_key),
        ("future.pem", &future),
        ("future.key", &future_key),
    ] {
        written(at, name, text);
    }
    written(at, "text.pem", "hello");
    written(at, "broken.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    written(at, "rules.yaml", "");
    // What is named; what is said.
    let sound = ("a.pem", "a.key", "a.pem", "rules.yaml", "state/store");
    let rows: &[(Names<'_>, &[&str])] = &[
        (sound, &[]),
        (
            ("none.pem", "none.key", sound.2, sound.3, sound.4),
            &["`none.pem` does not exist", "`none.key` does not exist"],
        ),
        (
            ("a.key", "a.pem", sound.2, sound.3, sound.4),
            &["`a.pem` has no private key in it", "`a.key` has no certificate in it"],
        ),
        (
            ("text.pem", "text.pem", sound.2, sound.3, sound.4),
            &["`text.pem` has no certificate in it", "`text.pem` has no private key in it"],
        ),
        (("broken.pem", "a.key", sound.2, sound.3, sound.4), &["`broken.pem` is not PEM"]),
        (("a.pem", "old.key", sound.2, sound.3, sound.4), &["`old.key` is not the key of `a.pem`"]),
        (("old.pem", "old.key", sound.2, sound.3, sound.4), &["`old.pem` expired on"]),
        (("future.pem", "future.key", sound.2, sound.3, sound.4), &["`future.pem` is valid from"]),
        (
            (sound.0, sound.1, "text.pem", "rules/", sound.4),
            &["`text.pem` has no certificate in it", "`rules/` does not exist"],
        ),
        (
            (sound.0, sound.1, sound.2, ".", "rules.yaml"),
            &["the store's folder `rules.yaml` is not writable"],
        ),
        (
            (sound.0, sound.1, sound.2, ".", "rules.yaml/x"),
            &["the store's folder `rules.yaml/x` cannot be made in `rules.yaml`"],
        ),
    ];
    for ((cert, key, ca, rules, store), expected) in rows {
        let text = format!(
            "listeners: [{{name: mx, protocol: smtp, bind: '0.0.0.0:25', upstream: u, relay_domains: [],\n\
             tls: {{mode: starttls, certificates: [{{cert: {cert}, key: {key}}}]}}}}]\n\
             upstreams: {{u: {{protocol: smtp, servers: 'h:25', tls: {{mode: starttls, ca: {ca}}}}}}}\n\
             rules: {{paths: {rules}}}\nstore: {{path: {store}}}\n"
        );
        let mut reading = Config::read(&text, &at.join("gatepost.yaml").display().to_string());
        reading.check_files(SystemTime::now());
        let prefix = format!("{}/", at.display());
        let said: Vec<_> = reading.faults.iter().map(|fault| fault.problem.replace(&prefix, "")).collect();
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for expected in *expected {
            assert!(said.iter().any(|said| said.starts_with(expected)), "{expected} in {said:?}");
        }
        assert!(!at.join("state").exists(), "looking makes nothing");
    }
}

#[test]
fn a_certificate_is_spoken_of_before_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(2020, 2090);
    let at = |name: &str, text: &str| {
        (folder.path().join(written(folder.path(), name, text)), node::Place::default())
    };
    let claim = Claim::Pair { cert: at("a.pem", &cert), key: at("a.key", &key) };
    let new_year_2090 = SystemTime::UNIX_EPOCH + Duration::from_secs(3_786_912_000);
    let day = Duration::from_secs(86_400);
    for (days, warnings) in [(15, 0), (13, 1)] {
        let mut found = Findings::default();
        ground::check_file(&claim, new_year_2090 - day * days, &mut found);
        assert_eq!((found.faults.len(), found.warnings.len()), (0, warnings), "{days}");
    }
}

#[test]
fn ports_are_tried_and_let_go() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap();
    for (address, expected) in [
        (taken, format!("`{taken}` is in use by `")),
        ("192.0.2.1:2525".parse().unwrap(), "`192.0.2.1:2525` is not an address of this machine".to_owned()),
    ] {
        let mut found = Findings::default();
        ground::check_port(&Claim::Port(address, node::Place::default()), &mut found);
        let said = found.faults.pop().map(|(_, problem, _)| problem).unwrap_or_default();
        assert!(said.starts_with(&expected), "{said}");
    }
    drop(held);
    for _ in 0..2 {
        let mut found = Findings::default();
        ground::check_port(&Claim::Port(taken, node::Place::default()), &mut found);
        assert_eq!(found.faults, []);
    }
}

#[test]
fn sessions_without_files_for_them_are_warned_of() {
    for (sessions, hard, warnings) in
        [(9_000, 18_064, 0), (9_000, 18_063, 1), (480, 1_024, 0), (481, 1_024, 1)]
    {
        let mut found = Findings::default();
        let claim = Claim::Sessions(sessions, node::Place::default());
        ground::check_sessions(&claim, hard, &mut found);
        assert_eq!((found.faults.len(), found.warnings.len()), (0, warnings), "{sessions} {hard}");
    }
}

const MANUAL: &str = include_str!("../../deploy/gatepost.yaml");
const LIMITS: &str = include_str!("../limits.rs");

#[test]
fn the_manual_can_be_run_as_it_is() {
    let reading = Config::read(MANUAL, "deploy/gatepost.yaml");
    assert_eq!((lines(&reading.faults), lines(&reading.warnings)), (Vec::new(), Vec::new()));
    assert_eq!(reading.config.limits, Limits::default());
    let written = reading.config.policies.iter().find(|policy| policy.set.name == "default").unwrap();
    assert_eq!(*written.set, PolicySet::new("default"), "the manual shows the defaults");
}

/// The manual with every setting in it switched on.
fn switched_on() -> node::Node {
    let on = |line: &str| match line.trim_start().strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => {
            format!("{}{setting}\n", &line[..line.len() - line.trim_start().len()])
        }
        _ => format!("{line}\n"),
    };
    let text: String = MANUAL.lines().map(on).collect();
    let around = Surroundings { variable: &|_| None, file: &|_| Err(io::ErrorKind::NotFound.into()) };
    let mut found = Findings::default();
    let root = node::read(&text, &around, &mut found.faults);
    assert_eq!(found.faults, [], "{text}");
    let root = root.unwrap();
    shape::check(&keys::FILE, &root, "", &mut found);
    for (_, problem, _) in &found.faults {
        assert!(problem.ends_with("is not supported by this version yet"), "{problem}");
    }
    root
}

/// Every key of the tables is in the manual, with its default where it has one.
fn compare(table: &'static keys::Table, nodes: &[&node::Node]) {
    for key in table.keys {
        let values = nodes.iter().filter_map(|node| match &node.kind {
            node::NodeKind::Map(entries) => entries.iter().find(|(name, _)| name.text == key.name),
            _ => None,
        });
        let values: Vec<_> = values.map(|(_, node)| node).collect();
        assert!(!values.is_empty(), "the manual lacks `{}` of {}", key.name, table.what);
        if let keys::Otherwise::Is(default) = key.default {
            let is_default = |node: &&node::Node| match &node.kind {
                node::NodeKind::Scalar(scalar) => scalar.text == default,
                node::NodeKind::List(items) => items.len() == 1,
                _ => false,
            };
            assert!(values.iter().any(is_default), "the manual shows no default of `{}`", key.name);
        }
        let inside: Vec<_> = values.iter().flat_map(|value| items(value)).collect();
        match key.kind {
            keys::Kind::Section(inner) | keys::Kind::List(&keys::Kind::Section(inner)) => {
                compare(inner, &inside);
            }
            keys::Kind::Named(inner) => {
                let named = inside.iter().flat_map(|node| match &node.kind {
                    node::NodeKind::Map(entries) => entries.iter().map(|(_, node)| node).collect(),
                    _ => Vec::new(),
                });
                compare(inner, &named.collect::<Vec<_>>());
            }
            _ => {}
        }
    }
}

fn items(node: &node::Node) -> Vec<&node::Node> {
    match &node.kind {
        node::NodeKind::List(items) => items.iter().collect(),
        _ => vec![node],
    }
}

#[test]
fn the_manual_has_every_key_and_its_default() {
    compare(&keys::FILE, &[&switched_on()]);
}

#[test]
fn the_schema_knows_what_the_manual_writes() {
    fn known(schema: &serde_json::Value, node: &node::Node, path: &str) {
        match &node.kind {
            node::NodeKind::Map(entries) => entries.iter().for_each(|(name, value)| {
                let of_all = schema.get("additionalProperties").filter(|all| all.is_object());
                let inner = schema["properties"].get(&name.text).or(of_all);
                let free = schema.get("additionalProperties").is_none();
                let path = format!("{path}.{}", name.text);
                assert!(free || inner.is_some(), "{path}");
                known(inner.unwrap_or(&serde_json::Value::Null), value, &path);
            }),
            node::NodeKind::List(items) => {
                let list = schema.get("oneOf").map_or(schema, |both| &both[1]);
                assert!(schema.is_null() || list["type"] == "array", "{path}");
                items.iter().for_each(|item| known(&list["items"], item, path));
            }
            node::NodeKind::Scalar(scalar) => {
                let words = schema.get("enum").and_then(|words| words.as_array());
                assert!(words.is_none_or(|words| words.iter().any(|word| *word == *scalar.text)), "{path}");
            }
            node::NodeKind::Nothing | node::NodeKind::Broken => {}
        }
    }
    known(&Config::schema(), &switched_on(), "");
}

#[test]
fn limits_are_described_in_the_same_words_everywhere() {
    for key in keys::LIMITS.keys {
        let field = format!("/// {}\n    {}:", key.doc, key.name);
        assert!(LIMITS.contains(&field), "src/limits.rs says something else of `{}`", key.name);
        let line = format!("  # {}", key.doc);
        assert!(MANUAL.contains(&line), "deploy/gatepost.yaml says something else of `{}`", key.name);
    }
}

#[test]
fn defaults_are_values_that_would_be_accepted() {
    fn check(table: &keys::Table) {
        for key in table.keys {
            match (key.kind, key.default) {
                (keys::Kind::OneOrMore(kind), keys::Otherwise::Is(text)) => {
                    assert!(kind.accepts(text), "{text}");
                }
                (kind, keys::Otherwise::Is(text)) => assert!(kind.accepts(text), "{}: {text}", key.name),
                (keys::Kind::Section(inner) | keys::Kind::Named(inner), _) => check(inner),
                (keys::Kind::List(&keys::Kind::Section(inner)), _) => check(inner),
                _ => {}
            }
        }
    }
    check(&keys::FILE);
}

#[test]
fn the_shipped_schema_is_that_of_the_keys() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/gatepost.schema.json");
    let schema = serde_json::to_string_pretty(&Config::schema()).unwrap() + "\n";
    if env::var_os("GATEPOST_WRITE_SCHEMA").is_some() {
        fs::write(&path, &schema).unwrap();
    }
    let shipped = fs::read_to_string(&path).unwrap_or_default();
    assert!(shipped == schema, "write it anew: GATEPOST_WRITE_SCHEMA=1 cargo test shipped_schema");
}
