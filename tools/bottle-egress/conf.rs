//! The configuration folder: what is in force, and how it is read.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::dlp::Engine;
use anyhow::Result;
use bottle::credentials::Told;
use bottle::error::{Blame, caller};
use bottle::policy::{Ask, Decision, Policy, Routes};
use bottle::state;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::watch;

use crate::ca::Ca;
use crate::grants::{Ends, Grants};
use crate::pool::Pool;
use crate::reply::Refusal;
use crate::secrets::Secrets;
use crate::tls;

/// The largest `routes.yaml`.
const MAX_ROUTES: u64 = 32 << 20;

/// All that a decision and its dial depend on, so that a change comes into force at one moment.
pub(crate) struct Force {
    /// The rules.
    pub(crate) policy: Arc<Policy>,
    /// SHA-256 of the bytes they came from.
    pub(crate) sha256: String,
    /// What rules may add to requests.
    pub(crate) secrets: Arc<Secrets>,
    /// How upstream servers are verified.
    pub(crate) upstream: Arc<ClientConfig>,
    /// Idle connections to them; they end with the policy that they were made under.
    pub(crate) pool: Pool,
    /// What the scan of what leaves looks for.
    pub(crate) engine: Arc<Engine>,
    /// What is left of granted rules.
    pub(crate) grants: Arc<Grants>,
    /// The bytes of `roots.pem`, to see whether they have changed.
    roots: Vec<u8>,
}

/// The folder, and what of it is in force.
pub(crate) struct Conf {
    folder: PathBuf,
    secrets: PathBuf,
    force: RwLock<Arc<Force>>,
    /// Why the `secrets.json` that is there is not taken.
    untaken: Mutex<Option<String>>,
    /// Told of whatever comes into force.
    changes: watch::Sender<()>,
}

/// What a look at the folder led to.
pub(crate) enum Look {
    /// The bytes are those in force.
    Same,
    /// New rules are in force.
    New(Arc<Force>),
    /// What is there now is refused.
    Refused {
        /// Of its bytes; empty where it could not be read.
        sha256: String,
        /// Why.
        error: anyhow::Error,
    },
}

impl Force {
    /// Decides by what holds at this moment.
    pub(crate) fn decide(&self, ask: &Ask<'_>) -> Decision {
        self.policy.decide_unless(ask, |term| self.grants.has_ended(term))
    }

    /// Decides about what was let through already.
    pub(crate) fn still(&self, ask: &Ask<'_>) -> Decision {
        self.policy.decide_unless(ask, |term| self.grants.has_expired(term))
    }

    /// How what a rule lets through ends, where that was granted for a time.
    pub(crate) fn ends(&self, rule: usize) -> Option<Ends> {
        let term = self.policy.rule(rule).and_then(|rule| rule.grant.as_ref())?;
        term.expires.is_some().then(|| Ends { grants: self.grants.clone(), term: term.clone() })
    }

    /// Takes one use of a rule that was granted for some.
    pub(crate) fn take(&self, rule: usize) -> Result<(), Refusal> {
        let term = self.policy.rule(rule).and_then(|rule| rule.grant.as_ref());
        term.map_or(Ok(()), |term| self.grants.take(term))
    }
}

impl Conf {
    /// Reads the folder for the first time; with it the CA, which stays.
    pub(crate) fn open(folder: &Path, secrets: &Path, grants: Grants) -> Result<(Self, Ca)> {
        let text = |name: &str| {
            std::fs::read_to_string(folder.join(name)).caller(format!("read '{name}'"))
        };
        let ca = Ca::load(&text("ca.pem")?, &text("ca-key.pem")?)?;
        let bytes = read_routes(folder).caller("read 'routes.yaml'")?;
        let grants = Arc::new(grants);
        let force =
            build(folder, &bytes, None, Arc::default(), grants).caller("take 'routes.yaml'")?;
        let conf = Self {
            folder: folder.to_owned(),
            secrets: secrets.to_owned(),
            force: RwLock::new(Arc::new(force)),
            untaken: Mutex::default(),
            changes: watch::Sender::default(),
        };
        // With the secrets.
        conf.look();
        Ok((conf, ca))
    }

    /// One without a folder, in which the rules of a `routes.yaml` are in force for ever.
    #[cfg(any(test, feature = "trial"))]
    pub(crate) fn fixed(routes: &[u8]) -> Result<Self> {
        let nowhere = Path::new("/nonexistent");
        let grants = Arc::new(Grants::open(nowhere)?);
        let force = build(nowhere, routes, None, Arc::default(), grants)?;
        Ok(Self {
            folder: nowhere.to_owned(),
            secrets: nowhere.to_owned(),
            force: RwLock::new(Arc::new(force)),
            untaken: Mutex::default(),
            changes: watch::Sender::default(),
        })
    }

    /// The same rules without the connections that were made under them.
    #[cfg(any(test, feature = "trial"))]
    pub(crate) fn renew(&self) -> Arc<Force> {
        let now = self.force();
        self.put(Force {
            policy: now.policy.clone(),
            sha256: now.sha256.clone(),
            secrets: now.secrets.clone(),
            upstream: now.upstream.clone(),
            pool: Pool::default(),
            engine: now.engine.clone(),
            grants: now.grants.clone(),
            roots: Vec::new(),
        })
    }

    /// What is in force now.
    pub(crate) fn force(&self) -> Arc<Force> {
        // Nothing panics while it holds the lock, which only swaps one pointer.
        self.force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hears of what comes into force from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Reads the folder again and puts into force what is valid.
    pub(crate) fn look(&self) -> Look {
        let now = self.force();
        // First, so that new rules find the secrets that were written before them.
        let secrets = self.secrets(&now.secrets);
        let now = if Arc::ptr_eq(&secrets, &now.secrets) {
            now
        } else {
            self.put(Force {
                engine: engine(&secrets, &now.policy),
                policy: now.policy.clone(),
                sha256: now.sha256.clone(),
                secrets,
                upstream: now.upstream.clone(),
                pool: Pool::default(),
                grants: now.grants.clone(),
                roots: now.roots.clone(),
            })
        };
        let bytes = match read_routes(&self.folder) {
            Ok(bytes) => bytes,
            Err(error) => return Look::Refused { sha256: String::new(), error },
        };
        let sha256 = state::sha256_hex(&bytes);
        let roots = read_roots(&self.folder);
        if sha256 == now.sha256 && roots.as_ref().is_ok_and(|roots| *roots == now.roots) {
            return Look::Same;
        }
        match build(&self.folder, &bytes, Some(&now), now.secrets.clone(), now.grants.clone()) {
            Ok(force) => Look::New(self.put(force)),
            Err(error) => Look::Refused { sha256, error },
        }
    }

    /// Ends what was let through by grants that have ended since.
    pub(crate) fn sweep(&self) {
        let force = self.force();
        if force.grants.sweep(&force.policy) {
            self.changes.send_replace(());
        }
    }

    fn put(&self, force: Force) -> Arc<Force> {
        let force = Arc::new(force);
        *self.force.write().unwrap_or_else(PoisonError::into_inner) = force.clone();
        self.changes.send_replace(());
        force
    }

    /// The secrets that are there now: the same ones where they have not changed, or cannot be read.
    fn secrets(&self, before: &Arc<Secrets>) -> Arc<Secrets> {
        let read = Secrets::read(&self.secrets, before);
        let untaken = read.as_ref().err().map(|error| format!("{error:#}"));
        *self.untaken.lock().unwrap_or_else(PoisonError::into_inner) = untaken;
        read.ok().flatten().map_or_else(|| before.clone(), Arc::new)
    }

    /// What is to be told of the secrets in use.
    pub(crate) fn told(&self) -> Told {
        let force = self.force();
        let rules = &force.policy.routes().routes;
        let names = rules.iter().filter_map(|rule| rule.inject.as_ref().map(|it| &it.secret));
        Told {
            generation: force.secrets.generation,
            refused: self.untaken.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            secrets: names.map(|name| (name.clone(), force.secrets.standing(name))).collect(),
        }
    }
}

/// The policy that the bytes of a `routes.yaml` mean, if this version can serve it.
pub(crate) fn policy(bytes: &[u8]) -> Result<Policy> {
    Policy::new(Routes::parse(bytes)?)
}

/// What the scan looks for, the values of secrets among it.
fn engine(secrets: &Secrets, policy: &Policy) -> Arc<Engine> {
    let values = secrets.all().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    Arc::new(Engine::new(&values.collect(), policy.routes().private_data))
}

fn build(
    folder: &Path,
    bytes: &[u8],
    before: Option<&Force>,
    secrets: Arc<Secrets>,
    grants: Arc<Grants>,
) -> Result<Force> {
    let policy = Arc::new(policy(bytes)?);
    let roots = read_roots(folder)?;
    let upstream = match before {
        // Keeps the session tickets.
        Some(before) if before.roots == roots => before.upstream.clone(),
        _ => Arc::new(tls::upstream(trusted(&roots)?)?),
    };
    let engine = engine(&secrets, &policy);
    let (sha256, pool) = (state::sha256_hex(bytes), Pool::default());
    Ok(Force { policy, sha256, secrets, upstream, pool, engine, grants, roots })
}

/// The roots of `roots.pem`, or Mozilla's where there are none.
fn trusted(pem: &[u8]) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    if pem.iter().all(u8::is_ascii_whitespace) {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(store);
    }
    let certs: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().caller("read 'roots.pem'")?;
    // Bundles of operating systems hold oddities that no verifier takes.
    let (taken, _) = store.add_parsable_certificates(certs);
    if taken == 0 {
        return Err(caller("read 'roots.pem': it holds no certificate"));
    }
    Ok(store)
}

fn read_routes(folder: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(folder.join("routes.yaml"))?
        .take(MAX_ROUTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_ROUTES {
        return Err(caller(format!("it is larger than {} MiB", MAX_ROUTES >> 20)));
    }
    Ok(bytes)
}

/// The bytes of `roots.pem`, none where it is missing.
fn read_roots(folder: &Path) -> Result<Vec<u8>> {
    match std::fs::read(folder.join("roots.pem")) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.caller("read 'roots.pem'"),
    }
}
