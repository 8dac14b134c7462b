//! The tools that an agent has. What goes wrong is told in a sentence, as the result of the tool.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bottle::error::visible;
use bottle::proposal::{GitRef, Id, Said, What};
use bottle::strict::did_you_mean;
use bottle::{caller, no};
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, Implementation, ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};

use crate::denials;
use crate::desk::{Desk, Standing};
use crate::inputs;
use crate::rules::Rules;

/// The longest wait for an answer.
const LONGEST: Duration = Duration::from_mins(1);
/// How often it is looked for.
const TICK: Duration = Duration::from_millis(200);
/// The most denials that are explained at once.
const MOST_DENIALS: usize = 20;

/// What all calls share.
pub(crate) struct Shared {
    pub(crate) desk: Desk,
    pub(crate) rules: Rules,
    pub(crate) egress: PathBuf,
}

/// The server, anew for each request.
#[derive(Clone)]
pub(crate) struct Supervise {
    shared: Arc<Shared>,
    router: ToolRouter<Self>,
}

/// What is told of the server to an agent.
const INSTRUCTIONS: &str = "You work in a bottle: what may leave it is what its owner allows. 'policy' says what that is, 'why_denied' explains denials. Where the work needs more, propose as little as does, with a reason; a person decides, and 'proposal_status' waits for the answer. Do not look for a way round a denial.";

#[tool_router(router = tool_router)]
impl Supervise {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, router: Self::tool_router() }
    }

    #[tool(name = "policy", description = "Say what may leave this bottle now.")]
    async fn policy(&self, Parameters(asked): Parameters<inputs::Policy>) -> CallToolResult {
        said(self.shared.rules.described(asked.host.as_deref()))
    }

    #[tool(
        name = "why_denied",
        description = "Explain the last requests that the bottle's proxy denied, and how to ask for them."
    )]
    async fn why_denied(&self, Parameters(asked): Parameters<inputs::WhyDenied>) -> CallToolResult {
        let last = asked.last.unwrap_or(5).clamp(1, MOST_DENIALS);
        let explained = self.shared.rules.policy().and_then(|(policy, ended)| {
            denials::explain(&self.shared.egress, &policy, ended, asked.host.as_deref(), last)
        });
        said(explained)
    }

    #[tool(
        name = "propose_route",
        description = "Ask the person who runs this bottle to let requests to a host out. Returns the id of the proposal; nothing is allowed before a person has approved it."
    )]
    async fn propose_route(&self, Parameters(asked): Parameters<inputs::Route>) -> CallToolResult {
        let proposed =
            asked.wish().rule(None).and_then(|rule| self.propose(What::Route(rule), &asked.reason));
        said(proposed)
    }

    #[tool(
        name = "propose_secret_use",
        description = "Ask the person who runs this bottle to add one of its secrets to requests to a host. You never see the secret."
    )]
    async fn propose_secret_use(
        &self,
        Parameters(asked): Parameters<inputs::SecretUse>,
    ) -> CallToolResult {
        said(self.secret_use(&asked))
    }

    #[tool(
        name = "propose_git_ref",
        description = "Ask the person who runs this bottle to let pushes to a ref of one of its git remotes through. All that is checked of a push is checked of these too."
    )]
    async fn propose_git_ref(
        &self,
        Parameters(asked): Parameters<inputs::GitRef>,
    ) -> CallToolResult {
        let what = What::GitRef(GitRef { remote: asked.remote, refs: asked.pattern });
        said(self.propose(what, &asked.reason))
    }

    #[tool(
        name = "propose_ssh_host",
        description = "Ask the person who runs this bottle for a host that you reach by ssh."
    )]
    async fn propose_ssh_host(&self, Parameters(_): Parameters<inputs::SshHost>) -> CallToolResult {
        said(Err(no(
            "this bottle takes no further ssh hosts while it runs, because a key belongs to each: tell the person whom you work for which host you need",
        )))
    }

    #[tool(
        name = "proposal_status",
        description = "Say how a proposal stands: open, approved or rejected, and in which words. With 'wait', waits up to that many seconds for an answer."
    )]
    async fn proposal_status(
        &self,
        Parameters(asked): Parameters<inputs::Status>,
    ) -> CallToolResult {
        let Some(id) = &asked.id else { return said(Ok(self.open())) };
        let end = Instant::now() + Duration::from_secs(asked.wait).min(LONGEST);
        loop {
            let standing =
                id.parse::<Id>().and_then(|id| Ok((self.shared.desk.standing(&id)?, id)));
            match standing {
                Ok((Standing::Open, _)) if Instant::now() < end => tokio::time::sleep(TICK).await,
                other => return said(other.and_then(|(standing, id)| described(&standing, &id))),
            }
        }
    }
}

impl Supervise {
    fn secret_use(&self, asked: &inputs::SecretUse) -> Result<String> {
        let settings = self.shared.desk.settings()?;
        let inject = settings.secrets.get(&asked.secret).cloned().ok_or_else(|| {
            let known: Vec<&str> = settings.secrets.keys().map(String::as_str).collect();
            caller(format!(
                "secret '{}' is none that this bottle adds to requests{}",
                visible(&asked.secret),
                did_you_mean(&asked.secret, &known)
            ))
        })?;
        let rule = asked.wish().rule(Some(inject))?;
        self.propose(What::SecretUse(rule), &asked.reason)
    }

    fn open(&self) -> String {
        let open = self.shared.desk.all();
        let lines = open.iter().map(|it| format!("- {}: {}\n", it.id, it.what.to_line()));
        match open.len() {
            0 => "No proposal is open.\n".to_owned(),
            _ => lines.fold("These proposals are open:\n".to_owned(), |text, line| text + &line),
        }
    }

    fn propose(&self, what: What, reason: &str) -> Result<String> {
        what.check()?;
        self.shared.rules.check(&what)?;
        let line = what.to_line();
        let (id, was_there) = self.shared.desk.propose(what, reason)?;
        let state = if was_there { "is open already" } else { "is made" };
        Ok(format!(
            "Proposal {id} {state}: {line}\nA person decides. Wait for it with proposal_status {{\"id\":\"{id}\",\"wait\":60}}.\n"
        ))
    }
}

fn described(standing: &Standing, id: &Id) -> Result<String> {
    match standing {
        Standing::Open => Ok(format!("Proposal {id} is open: nobody has decided yet.\n")),
        Standing::Answered(Said::Approved(line)) => {
            Ok(format!("Proposal {id} is approved, and in force: {}\n", visible(line)))
        }
        Standing::Answered(Said::Rejected(words)) => {
            Ok(format!("Proposal {id} is rejected: {}\n", visible(words)))
        }
        Standing::Unknown => Err(no(format!(
            "there is no proposal '{id}', or none any more: one that nobody decides about for a day is given up"
        ))),
    }
}

/// A result for the agent.
fn said(outcome: Result<String>) -> CallToolResult {
    match outcome {
        Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
        Err(error) => {
            CallToolResult::error(vec![ContentBlock::text(visible(&format!("{error:#}")))])
        }
    }
}

#[tool_handler(router = self.router)]
impl ServerHandler for Supervise {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_instructions(INSTRUCTIONS);
        info.server_info = Implementation::new("bottle-supervise", env!("CARGO_PKG_VERSION"));
        info
    }
}
