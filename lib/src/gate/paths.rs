//! Paths that a push may not touch, because a forge or a developer's git runs what lies there, and
//! nobody has read it yet.

use anyhow::Result;

use crate::error::caller;
use crate::policy::Glob;

/// The protected paths, in lower case: a path is looked up in lower case, because some file systems
/// know no other. The folder itself counts too, where it is a link or a submodule.
pub const PROTECTED: [&str; 34] = [
    ".azure-pipelines",
    ".azure-pipelines/**",
    ".buildkite",
    ".buildkite/**",
    ".circleci",
    ".circleci/**",
    ".drone.yml",
    ".forgejo",
    ".forgejo/workflows/**",
    ".gitea",
    ".gitea/workflows/**",
    ".githooks",
    ".githooks/**",
    ".github",
    ".github/actions/**",
    ".github/codeowners",
    ".github/dependabot.yml",
    ".github/workflows",
    ".github/workflows/**",
    ".gitlab",
    ".gitlab-ci.yml",
    ".gitlab/ci/**",
    ".husky",
    ".husky/**",
    ".lefthook.yml",
    ".pre-commit-config.yaml",
    ".travis.yml",
    ".woodpecker",
    ".woodpecker.yml",
    ".woodpecker/**",
    "azure-pipelines.yml",
    "bitbucket-pipelines.yml",
    "jenkinsfile",
    "lefthook.yml",
];

/// The protected paths, and those of them that a remote's owner lets a push touch.
#[derive(Debug)]
pub struct Allowed {
    protected: Vec<Glob>,
    allowed: Vec<Glob>,
}

impl Allowed {
    /// Parses `allow_paths`: globs as in routes, without a `/` at their beginning.
    pub fn parse(allow: &[String]) -> Result<Self> {
        let glob = |text: &str| Glob::parse(&format!("/{text}"));
        let parse = |text: &String| match glob(text) {
            Ok(glob) if !text.is_empty() && !text.starts_with('/') => Ok(glob),
            _ if text.starts_with('/') => {
                Err(caller(format!("allow_paths '{text}': write it without the first '/'")))
            }
            _ => Err(caller(format!(
                "allow_paths '{text}': it is no path with wildcards, as in '.github/workflows/docs.yml'"
            ))),
        };
        Ok(Self {
            protected: PROTECTED.iter().map(|text| glob(text)).collect::<Result<_>>()?,
            allowed: allow.iter().map(parse).collect::<Result<_>>()?,
        })
    }

    /// Whether a push may not touch a path.
    #[must_use]
    pub fn refuses(&self, path: &str) -> bool {
        let lower = format!("/{}", path.to_lowercase());
        let exact = format!("/{path}");
        self.protected.iter().any(|glob| glob.matches(&lower))
            && !self.allowed.iter().any(|glob| glob.matches(&exact))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(allow: &[&str], path: &str) -> bool {
        let allow: Vec<String> = allow.iter().map(|&text| text.to_owned()).collect();
        Allowed::parse(&allow).unwrap().refuses(path)
    }

    #[test]
    fn what_a_forge_runs_is_protected_whatever_its_case() {
        for path in [
            ".github/workflows/ci.yml",
            ".github/workflows/deep/er.yml",
            ".GitHub/Workflows/ci.yml",
            ".github",
            ".gitlab-ci.yml",
            "Jenkinsfile",
            ".husky/pre-commit",
        ] {
            assert!(refuses(&[], path), "{path}");
        }
        for path in ["README.md", ".github/ISSUE_TEMPLATE.md", "src/.github/workflows/x.yml"] {
            assert!(!refuses(&[], path), "{path}");
        }
    }

    #[test]
    fn owner_allows_to_the_letter() {
        let allow = [".github/workflows/docs.yml"];
        assert!(!refuses(&allow, ".github/workflows/docs.yml"));
        assert!(refuses(&allow, ".github/workflows/ci.yml"));
        assert!(refuses(&allow, ".github/workflows/DOCS.yml"));
        assert!(!refuses(&[".github/**"], ".github/workflows/ci.yml"));
    }

    #[test]
    fn odd_patterns_are_refused() {
        for text in ["/x", "", "a/../b", "***"] {
            assert!(Allowed::parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
