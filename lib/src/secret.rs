//! Where secrets come from. Their values are read at the last moment, and here only looked for.

use std::path::Path;

use anyhow::Result;

use crate::error::{Blame, caller};
use crate::plan::{Plan, Secret};

/// Checks that the source of every secret is there, without reading one.
pub fn check(plan: &Plan) -> Result<()> {
    plan.secrets.iter().try_for_each(|(name, secret)| source(name, secret))
}

fn source(name: &str, secret: &Secret) -> Result<()> {
    let what = format!("find secret '{name}'");
    match secret {
        Secret { from_env: Some(variable), .. } => match std::env::var_os(variable) {
            Some(value) if !value.is_empty() => Ok(()),
            Some(_) => Err(caller(format!("{what}: variable '{variable}' is empty: set it"))),
            None => Err(caller(format!("{what}: variable '{variable}' is not set: export it"))),
        },
        Secret { from_file: Some(path), .. } => readable(path).caller(what),
        Secret { from_command: Some(command), .. } => {
            let program = command.first().map_or("", String::as_str);
            which::which(program).map(drop).map_err(|_| {
                caller(format!(
                    "{what}: command '{program}' is not there: install it, or mend PATH"
                ))
            })
        }
        Secret { from_env: None, from_file: None, from_command: None } => Err(caller(format!(
            "{what}: it names no source: give from_env, from_file or from_command"
        ))),
    }
}

/// Whether a file can be read by this process. It is not opened, because a pipe would wait.
pub fn readable(path: &Path) -> Result<()> {
    let what = || format!("read '{}'", path.display());
    if std::fs::metadata(path).caller(what())?.is_dir() {
        return Err(caller(format!("{}: it is a folder", what())));
    }
    rustix::fs::access(path, rustix::fs::Access::READ_OK).caller(what())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret { from_env: None, from_file: None, from_command: None }
    }

    fn refusal(secret: &Secret) -> String {
        format!("{:#}", source("token", secret).unwrap_err())
    }

    #[test]
    fn missing_source_is_named() {
        let env = Secret { from_env: Some("BOTTLE_NOT_SET".to_owned()), ..secret() };
        assert_eq!(
            refusal(&env),
            "find secret 'token': variable 'BOTTLE_NOT_SET' is not set: export it"
        );
        let file = Secret { from_file: Some("/nonexistent/key".into()), ..secret() };
        assert!(
            refusal(&file).starts_with("find secret 'token': read '/nonexistent/key': No such")
        );
        let folder = Secret { from_file: Some("/".into()), ..secret() };
        assert_eq!(refusal(&folder), "find secret 'token': read '/': it is a folder");
        let command = Secret { from_command: Some(vec!["no-such-pass".to_owned()]), ..secret() };
        assert!(refusal(&command).contains("command 'no-such-pass' is not there"));
        assert!(refusal(&secret()).contains("names no source"));
    }

    #[test]
    fn source_that_is_there_is_enough() {
        let file = Secret { from_file: Some("/proc/self/stat".into()), ..secret() };
        assert!(source("token", &file).is_ok());
        let command = Secret { from_command: Some(vec!["sh".to_owned()]), ..secret() };
        assert!(source("token", &command).is_ok());
    }
}
