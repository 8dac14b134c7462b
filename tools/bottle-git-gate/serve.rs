//! `bottle-git-gate serve`: binds, tells, serves, a thread a connection.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use bottle::error::Blame;
use bottle::gate::Gate;
use bottle::{caller, state};

use crate::args::{Check, Serve};
use crate::conf::Conf;
use crate::mirror::Mirrors;
use crate::session::{self, Session};

/// Connections at once. Further ones are told to come later.
const MOST: usize = 32;

/// What all connections share.
pub(crate) struct Server {
    pub(crate) serve: Serve,
    pub(crate) conf: Arc<Conf>,
    pub(crate) mirrors: Mirrors,
    busy: AtomicUsize,
}

/// Serves until a signal ends it.
pub(crate) fn serve(serve: Serve) -> Result<()> {
    let conf = Arc::new(Conf::open(&serve.conf, &serve.run)?);
    let hook = serve.hooks.join("pre-receive");
    rustix::fs::access(&hook, rustix::fs::Access::EXEC_OK)
        .caller(format!("find the hook '{}'", hook.display()))?;
    // What a scan that was killed left.
    for name in state::names(&serve.data)?.iter().filter(|name| name.starts_with("scan-")) {
        state::remove_folder(&serve.data.join(name))?;
    }
    let listener = TcpListener::bind(serve.listen).world(format!("listen on {}", serve.listen))?;
    conf.clone().watch()?;
    let busy = AtomicUsize::new(0);
    let server = Arc::new(Server { serve, conf, mirrors: Mirrors::default(), busy });
    loop {
        match listener.accept() {
            Ok((stream, _)) => server.clone().take(stream),
            // No descriptors left, or the client is gone.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

impl Server {
    fn take(self: Arc<Self>, stream: TcpStream) {
        if self.busy.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.busy.fetch_sub(1, Ordering::Relaxed);
            return session::refuse(&stream, "bottle: too many at once: come again");
        }
        let server = self.clone();
        let run = move || {
            Session::new(&server, &stream).run();
            server.busy.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().name("session".into()).spawn(run).is_err() {
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Checks a `gate.json`.
pub(crate) fn check(args: &Check) -> Result<()> {
    let bytes = match args.file.to_str() {
        Some("-") => {
            use std::io::Read;
            let mut bytes = Vec::new();
            std::io::stdin().lock().read_to_end(&mut bytes).world("read stdin")?;
            bytes
        }
        _ => std::fs::read(&args.file).caller(format!("read '{}'", args.file.display()))?,
    };
    Gate::parse(&bytes).map(drop).map_err(|error| caller(format!("check the file: {error:#}")))
}
