//! What runs under the name of the project already.

use anyhow::Result;
use bottle::docker::{Docker, label};
use bottle::{no, world};

use crate::job::Job;

/// One container of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) service: String,
    pub(crate) plan: String,
    pub(crate) running: bool,
}

/// Asks the engine; refuses a project with containers that are none of ours, which Compose would
/// replace.
pub(crate) fn look(docker: &Docker, job: &Job) -> Result<Vec<Container>> {
    let project = &job.render.compose_project;
    let format = [
        format!("{{{{.Label \"{}\"}}}}", label::PROJECT),
        format!("{{{{.Label \"{}\"}}}}", label::PLAN),
        "{{.Label \"com.docker.compose.service\"}}".to_owned(),
        "{{.State}}".to_owned(),
        "{{.Names}}".to_owned(),
    ];
    let filter = format!("label=com.docker.compose.project={project}");
    let listed =
        docker.text(&["ps", "--all", "--filter", &filter, "--format", &format.join("\t")])?;
    listed.lines().map(|line| container(line, project)).collect()
}

fn container(line: &str, project: &str) -> Result<Container> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [ours, plan, service, state, name] = fields[..] else {
        return Err(world(format!("read what 'docker ps' printed: '{line}'")));
    };
    if ours != project {
        return Err(no(format!(
            "start project '{project}': its container '{name}' is none of bottle's, and would be replaced: remove it first"
        )));
    }
    Ok(Container {
        service: service.to_owned(),
        plan: plan.to_owned(),
        running: state == "running",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_of_ours_is_read() {
        let found = container("p\tsha256:1\tegress\trunning\tp-egress", "p").unwrap();
        assert_eq!((found.service.as_str(), found.running), ("egress", true));
        assert!(!container("p\t\tagent\texited\tp-agent", "p").unwrap().running);
    }

    #[test]
    fn container_without_our_label_is_refused() {
        let error = container("\t\tagent\texited\tp_agent_1", "p").unwrap_err();
        assert!(error.to_string().contains("'p_agent_1' is none of bottle's"));
    }
}
