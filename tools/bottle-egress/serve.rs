//! `bottle-egress serve`: binds, tells, serves, and ends at once on SIGTERM.

use std::sync::Arc;

use anyhow::Result;
use bottle::error::Blame;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Serve;
use crate::conf::Conf;
use crate::dns;
use crate::grants::Grants;
use crate::journal::Journal;
use crate::lanes::Lanes;
use crate::proxy::{self, Egress};
use crate::resolve::Resolver;
use crate::tls::Interceptor;
use crate::watch::Watch;

/// Serves until a signal ends it.
pub(crate) fn serve(args: &Serve) -> Result<()> {
    // For all but the connections, which have threads of their own.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().world("start")?;
    let journal = Arc::new(Journal::open(&args.run)?);
    let outcome = runtime.block_on(serve_on(args, journal.clone()));
    // Connections end where they are; only what was decided must not be lost.
    journal.close();
    outcome
}

async fn serve_on(args: &Serve, journal: Arc<Journal>) -> Result<()> {
    // Before anything else: PID 1 has no default for signals that it does not handle.
    let mut term = signal(SignalKind::terminate()).world("take SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).world("take SIGINT")?;
    let (conf, ca) = Conf::open(&args.conf, &args.secrets, Grants::open(&args.run)?)?;
    let conf = Arc::new(conf);
    let listener =
        TcpListener::bind(args.listen).await.world(format!("listen on {}", args.listen))?;
    let names = match args.dns {
        None => None,
        Some(address) => Some((
            UdpSocket::bind(address).await.world(format!("listen on {address} (UDP)"))?,
            TcpListener::bind(address).await.world(format!("listen on {address} (TCP)"))?,
        )),
    };
    let egress = Arc::new(Egress {
        conf: conf.clone(),
        journal,
        interceptor: Interceptor::new(ca)?,
        resolver: Resolver::new(args.resolver)?,
    });
    if let Some((udp, tcp)) = names {
        tokio::spawn(dns::udp(egress.clone(), udp));
        tokio::spawn(dns::tcp(egress.clone(), tcp));
    }
    let (lanes, threads) = Lanes::start(&egress).world("start")?;
    let watch = Watch::start(conf, [&args.conf, &args.secrets], &args.run)?;
    tokio::select! {
        () = proxy::accept(lanes, listener) => {}
        () = watch.run() => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    threads.join();
    Ok(())
}
