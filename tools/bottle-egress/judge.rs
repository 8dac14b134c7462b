//! `bottle-egress judge`: decides for another proxy, so that there is one decision function and not
//! a second one to keep alike. Questions come as JSON lines on stdin, verdicts leave on stdout; the
//! configuration, the journal and the bottle's DNS are as in `serve`. The end of stdin ends it.
//!
//! The proxy says `ready` once it listens, `connect` and `request` before it does either, and `end`
//! when a request that was allowed is over. It dials the addresses of the verdict and no other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bottle::error::Blame;
use bytes::Bytes;
use hyper::Response;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args;
use crate::body::Answer;
use crate::conf::Conf;
use crate::dns;
use crate::grants::Grants;
use crate::journal::Journal;
use crate::proxy::Egress;
use crate::reply;
use crate::resolve::Resolver;
use crate::tls::Interceptor;
use crate::watch::Watch;

mod open;
mod request;
mod wire;

use open::Open;
use wire::{Answered, Question, say};

/// The most requests that go on at once; more are recorded without their status.
const OPEN: usize = 4096;

/// Judges until stdin ends.
pub(crate) fn judge(args: &args::Judge) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().world("start")?;
    let journal = Arc::new(Journal::open(&args.run)?);
    let outcome = runtime.block_on(judge_on(args, journal.clone()));
    journal.close();
    outcome
}

async fn judge_on(args: &args::Judge, journal: Arc<Journal>) -> Result<()> {
    let mut term = signal(SignalKind::terminate()).world("take SIGTERM")?;
    let (conf, ca) = Conf::open(&args.conf, &args.secrets, Grants::open(&args.run)?)?;
    let conf = Arc::new(conf);
    let egress = Arc::new(Egress {
        conf: conf.clone(),
        journal,
        interceptor: Interceptor::new(ca)?,
        resolver: Resolver::new(args.resolver)?,
    });
    if let Some(address) = args.dns {
        let udp = UdpSocket::bind(address).await.world(format!("listen on {address} (UDP)"))?;
        let tcp = TcpListener::bind(address).await.world(format!("listen on {address} (TCP)"))?;
        tokio::spawn(dns::udp(egress.clone(), udp));
        tokio::spawn(dns::tcp(egress.clone(), tcp));
    }
    let judge = Arc::new(Judge { egress, open: Mutex::default() });
    let mut questions = questions()?;
    let mut watch = None;
    loop {
        let question = tokio::select! {
            question = questions.recv() => question,
            _ = term.recv() => None,
        };
        let Some(question) = question else { break };
        let (question, bytes) = question?;
        match question {
            Question::Ready => {
                if watch.is_none() {
                    let started =
                        Watch::start(conf.clone(), [&args.conf, &args.secrets], &args.run)?;
                    watch = Some(tokio::spawn(started.run()));
                }
                say(&Answered::default(), &[]);
            }
            Question::End { of, status, sent, received } => judge.end(of, status, sent, received),
            Question::Used { of } => drop(judge.open().remove(&of)),
            question => {
                let judge = judge.clone();
                tokio::spawn(async move { judge.answer(question, &bytes).await });
            }
        }
    }
    judge.end_all();
    Ok(())
}

/// What stdin asks; what is not read whole ends it.
fn questions() -> Result<mpsc::Receiver<Result<(Question, Bytes)>>> {
    let (give, take) = mpsc::channel(64);
    std::thread::Builder::new()
        .name("stdin".into())
        .spawn(move || {
            let mut stdin = std::io::stdin().lock();
            while let Some(question) = wire::read(&mut stdin).transpose() {
                let over = question.is_err();
                if give.blocking_send(question).is_err() || over {
                    return;
                }
            }
        })
        .world("start")?;
    Ok(take)
}

/// What all questions share.
struct Judge {
    egress: Arc<Egress>,
    /// What goes on.
    open: Mutex<HashMap<u64, Open>>,
}

impl Judge {
    async fn answer(&self, question: Question, bytes: &[u8]) {
        let mut verdict = Answered::default();
        let mut masked = Bytes::new();
        if let Err(response) = self.judge(question, bytes, &mut verdict, &mut masked).await {
            verdict.refuse = Some((*response).into());
        }
        say(&verdict, &masked);
    }

    /// Fills in the verdict, or gives the answer to give in place of the server's.
    async fn judge(
        &self,
        question: Question,
        bytes: &[u8],
        verdict: &mut Answered,
        masked: &mut Bytes,
    ) -> Result<(), Box<Response<Answer>>> {
        match question {
            Question::Connect { id, client, authority, headers } => {
                verdict.id = id;
                verdict.tunnel = Some(self.connect(id, client, &authority, &headers)?);
            }
            Question::Malformed { id, client, tunnel, why } => {
                verdict.id = id;
                return Err(self.malformed(client, tunnel.as_ref(), &why));
            }
            Question::Request(asked) => {
                verdict.id = asked.id;
                let grpc = wire::is_grpc(&asked.headers);
                let allowed = self.request(&asked).await.map_err(|response| {
                    if grpc { Box::new(reply::for_grpc(*response)) } else { response }
                });
                verdict.allow = Some(allowed?);
            }
            Question::Body { id, of, end, long, .. } => {
                verdict.id = id;
                verdict.hold = Some(self.body(of, bytes, end, long)?);
            }
            Question::Trailers { id, of, headers } => {
                verdict.id = id;
                verdict.hold = Some(self.trailers(of, &headers)?);
            }
            Question::Answer { id, of, headers } => {
                verdict.id = id;
                verdict.answer = Some(self.head(of, &headers)?);
            }
            Question::Back { id, of, end, .. } => {
                verdict.id = id;
                *masked = self.back(of, bytes, end)?;
                verdict.size = Some(masked.len());
            }
            Question::Ready | Question::End { .. } | Question::Used { .. } => {}
        }
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, id: u64, begun: Open) {
        let mut open = self.open();
        if open.len() >= OPEN {
            self.egress.journal.record(&begun.line);
        } else {
            open.insert(id, begun);
        }
    }

    fn end_all(&self) {
        for (_, open) in self.open().drain() {
            self.egress.journal.record(&open.line);
        }
    }
}
