//! The gateway as a whole: its doors, the sessions behind them, and what they may take.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use gatepost::{admin, app::App, config::Config, limits::Limits, session::Spool, store::Store};
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};

use crate::kit::gateway;

/// A gateway over TCP in front of a server that is not there: every client is told 421.
struct Running {
    doors: Vec<SocketAddr>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
    _folder: TempDir,
}

impl Running {
    fn with(doors: usize, limits: Limits) -> Self {
        let folder = TempDir::new().unwrap();
        let text = format!(
            "store: {{path: {}}}\n\
             upstreams: {{real: {{protocol: smtp, servers: ['127.0.0.1:1']}}}}\n\
             listeners: [{{name: mx, protocol: smtp, bind: '127.0.0.1:2525', upstream: real, relay_domains: [example.org]}}]\n",
            folder.path().join("store").display()
        );
        let (mut config, _) =
            Config::read(&text, "gateway.yaml").sound().unwrap_or_else(|faults| panic!("{faults:?}"));
        config.listeners[0].bind = vec!["127.0.0.1:0".parse().unwrap(); doors];
        config.limits = limits;
        let app = App::build(&config).unwrap();
        let doors = app.addresses().into_iter().map(|(_, address)| address).collect();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(app.run_until(async move {
            let _ = stopped.await;
        }));
        Self { doors, stop, served, _folder: folder }
    }

    async fn visit(&self, door: usize, times: usize) {
        let address = self.doors[door];
        let visits = move || (0..times).for_each(|_| visit(address));
        spawn_blocking(visits).await.unwrap();
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap();
    }
}

fn visit(address: SocketAddr) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("421"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_nobody_knocks_at_keeps_no_session_from_the_others() {
    let running = Running::with(3, Limits { sessions: 1, ..Limits::default() });
    for door in [2, 0, 1, 1, 2, 0] {
        running.visit(door, 1).await;
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_ended_leave_no_memory_behind() {
    // Other tests in the same process would blur what is measured.
    if std::env::var_os("GATEPOST_TEST_ALONE").is_none() {
        let alone = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "gateway::sessions_that_ended_leave_no_memory_behind"])
            .env("GATEPOST_TEST_ALONE", "1")
            .output()
            .unwrap();
        assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
        return;
    }
    let running = Running::with(1, Limits::default());
    running.visit(0, 2_000).await;
    let before = resident();
    running.visit(0, 10_000).await;
    let grown = resident().saturating_sub(before);
    running.end().await;
    assert!(grown < 1024 * 1024, "10000 sessions left {grown} octets behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_the_metrics_beyond_64_wait() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let (gateway, _drain) = gateway(store, folder.path(), Limits::default());
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let served = tokio::spawn(admin::serve(socket, gateway));
    spawn_blocking(move || {
        let mut silent: Vec<_> = (0..64).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut late = TcpStream::connect(address).unwrap();
        late.write_all(b"GET /live HTTP/1.0\r\n\r\n").unwrap();
        late.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        assert!(late.read(&mut [0]).is_err(), "the 65th was answered");
        silent.pop();
        late.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut answer = String::new();
        late.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("live\n"), "{answer}");
    })
    .await
    .unwrap();
    served.abort();
}

/// Resident octets of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// A message that went to a file keeps memory for what comes next; the shared budget must know of it.
#[tokio::test]
async fn memory_of_a_spool_with_a_file_is_in_the_budget() {
    for (budget, piece) in [(1 << 20, 1_000), (1 << 20, 20_000), (1 << 20, 64 * 1024), (0, 1_000)] {
        let folder = TempDir::new().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let limits = Limits { spool_memory_bytes: budget, ..Limits::default() };
        let (gateway, _drain) = gateway(store, folder.path(), limits);
        let mut spool = Spool::new(&gateway);
        let pieces = 700_000 / piece;
        for _ in 0..pieces {
            spool.sink().extend_from_slice(&vec![b'x'; piece]);
            spool.settle().await.unwrap();
            let held = spool.sink().capacity() as u64;
            let counted = budget - gateway.budget.left();
            assert!(counted >= held, "{held} octets are held, {counted} are counted");
        }
        assert!(spool.sink().capacity() <= 128 * 1024, "the memory of before the file is kept");
        assert_eq!(spool.len(), (pieces * piece) as u64);
        assert_eq!(spool.finish().await.unwrap().head(u64::MAX).unwrap().len(), pieces * piece);
        assert_eq!(gateway.budget.left(), budget);
    }
}
