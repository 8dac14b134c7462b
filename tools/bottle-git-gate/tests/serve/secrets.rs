//! Secrets in what is pushed, wherever they are: gitleaks looks into exactly what is new.

use std::fs;

use crate::support::{World, token};

const AGENT: &[&str] = &["refs/heads/agent/*", "refs/tags/*", "refs/notes/agent"];
const PUSH: &str = "git push origin HEAD:agent/x";
const UNDO: &str = "git checkout -q main && git reset -q --hard origin/main && git clean -qfd";

#[test]
fn secret_is_refused_with_its_commit_file_and_line() {
    let Some(world) = World::new(AGENT) else { return };
    let before = world.refs();
    let token = token();
    let said = world.work(&format!(
        "printf 'a\\nb\\nkey = \"{token}\"\\n' >conf.py && git add . && git commit -qm x && {PUSH}"
    ));
    let id = world.work("git rev-parse --short=12 HEAD").ok();
    let said = said
        .fails(&format!("rule 'secrets': commit {}: 'github-pat' in conf.py, line 3", id.trim()));
    // What it is, is told to nobody.
    assert!(!said.contains(&token));
    assert!(!fs::read_to_string(world.path("run/decisions.jsonl")).unwrap().contains(&token));
    assert_eq!(world.leftovers(), Vec::<String>::new());
    assert_eq!(world.refs(), before);
    world
        .work(&format!(
            "{UNDO} && printf 'a\\nb\\n' >conf.py && git add . && git commit -qm x && {PUSH}"
        ))
        .ok();
}

#[test]
fn secret_that_is_added_and_taken_away_within_one_push_is_found() {
    let Some(world) = World::new(AGENT) else { return };
    let token = token();
    world
        .work(&format!("echo 'k={token}' >s && git add . && git commit -qm 1 && git rm -q s && echo x >x && git add . && git commit -qm 2 && {PUSH}"))
        .fails("'github-pat' in s, line 1");
    world.work(&format!("{UNDO} && echo x >x && git add . && git commit -qm 2 && {PUSH}")).ok();
}

#[test]
fn secret_that_only_a_merge_has_is_found() {
    let Some(world) = World::new(AGENT) else { return };
    let merge = |change: &str| {
        format!(
            "{UNDO} && git checkout -q -B a && echo a >a && git add . && git commit -qm a
             git checkout -q -B b main && echo b >b && git add . && git commit -qm b
             git merge -q --no-commit a && {change} && git add . && git commit -qm merge && {PUSH}"
        )
    };
    let token = token();
    world.work(&merge(&format!("echo 'k={token}' >s"))).fails("'github-pat' in s, line 1");
    // In a file that both have, too.
    world.work(&merge(&format!("echo 'k={token}' >>a"))).fails("'github-pat' in a");
    // A merge of three.
    let three = format!(
        "{UNDO} && for n in a b c; do git checkout -q -B $n main && echo $n >$n && git add . && git commit -qm $n; done
         git merge -q --no-commit a b && echo 'k={token}' >s && git add . && git commit -qm merge && {PUSH}"
    );
    world.work(&three).fails("'github-pat' in s");
    world.work(&merge("true")).ok();
}

#[test]
fn secret_that_upstream_has_is_no_finding() {
    let Some(world) = World::new(AGENT) else { return };
    let token = token();
    world
        .git(&format!("cd seed-repo && printf 'k={token}\\nx\\n' >old && git add . && git commit -qm old && git push -q $UP/repo.git main"))
        .ok();
    world
        .work(&format!("git pull -q && sed -i 's/^x$/y/' old && git commit -qam y && {PUSH}"))
        .ok();
    // A merge with what upstream got meanwhile is none either.
    world.git("cd seed-repo && echo m >m && git add . && git commit -qm m && git push -q $UP/repo.git main").ok();
    world.work(&format!("git pull -q --no-rebase --no-edit origin main && {PUSH}")).ok();
    world
        .work(&format!("echo 'k={token}' >copy && git add . && git commit -qm copy && {PUSH}"))
        .fails("'github-pat' in copy");
}

#[test]
fn no_place_hides_a_secret() {
    let Some(world) = World::new(AGENT) else { return };
    let commit =
        |make: &str| format!("{UNDO} && {make} && git add . && git commit -qm x && {PUSH}");
    let found = "'github-pat' in ";
    for (what, make) in [
        (
            "a file that says that it is binary",
            format!("printf '%%PDF-1.4\\n\\0\\0\\nk={}\\n' >x.pdf", token()),
        ),
        ("a tar", format!("echo 'k={}' >y && tar -cf x.tar y && rm y", token())),
        (
            "an attribute",
            format!("echo '* -diff -text binary' >.gitattributes && echo 'k={}' >y", token()),
        ),
        (
            "a comment that silences gitleaks",
            format!("echo 'k = \"{}\" # gitleaks:allow' >y", token()),
        ),
        (
            "gitleaks' own files",
            format!(
                "echo '[allowlist]\npaths = [\".*\"]' >.gitleaks.toml && echo y >.gitleaksignore && echo 'k={}' >y",
                token()
            ),
        ),
        ("a lock file", format!("echo 'k={}' >package-lock.json", token())),
        ("a file without an end", format!("printf 'k={}' >y", token())),
        (
            "a line of a megabyte",
            format!(
                "{{ head -c 500000 /dev/zero | tr '\\0' ' '; printf 'k={}'; head -c 500000 /dev/zero | tr '\\0' ' '; }} >y",
                token()
            ),
        ),
        (
            "where buffers end",
            format!("{{ head -c 65530 /dev/zero | tr '\\0' ' '; echo 'k={}'; }} >y", token()),
        ),
        ("a link", format!("ln -s 'k={}' y", token())),
        ("the name of a file", format!("mkdir -p d && echo x >'d/k={}'", token())),
        ("a file with an odd name", format!("echo 'k={}' >\"$(printf 'a\\tb\\n++ c')\"", token())),
    ] {
        let said = world.work(&commit(&make));
        assert!(!said.ok && said.said.contains(found), "{what}: {}", said.said);
    }
    world.work(&commit("echo x >x")).ok();
}

#[test]
fn messages_tags_and_notes_are_looked_into() {
    let Some(world) = World::new(AGENT) else { return };
    let token = token();
    let found = "rule 'secrets': commit ";
    world.work(&format!("git commit -q --allow-empty -m 'k={token}' && {PUSH}")).fails(found);
    world
        .work(&format!(
            "{UNDO} && GIT_AUTHOR_NAME='k={token}' git commit -q --allow-empty -m x && {PUSH}"
        ))
        .fails(found);
    world
        .work(&format!("{UNDO} && git tag -a t1 -m 'k={token}' && git push origin t1"))
        .fails(found);
    world
        .work(&format!(
            "git notes --ref=agent add -m 'k={token}' && git push origin refs/notes/agent"
        ))
        .fails(found);
    // A header that git does not know.
    world
        .work(&format!("{UNDO} && git cat-file commit HEAD | sed '/^committer/a x-note k={token}' >c && git reset -q --hard $(git hash-object -t commit -w c) && {PUSH}"))
        .fails(found);
    world.work(&format!("{UNDO} && git tag -a t2 -m fine && git push -q origin t2")).ok();
    world.work("git update-ref -d refs/notes/agent && git notes --ref=agent add -m fine && git push -q origin refs/notes/agent").ok();
}

#[test]
fn scan_that_cannot_be_made_refuses() {
    let Some(mut world) = World::new(AGENT) else { return };
    let broken = world.path("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("gitleaks"), "#!/bin/sh\nexit 1\n").unwrap();
    crate::support::executable(&broken.join("gitleaks"));
    world.work("echo x >x && git add . && git commit -qm x").ok();
    world.kill();
    world.gate_with(&broken);
    world.work(PUSH).fails("gitleaks failed");
    world.kill();
    world.gate();
    world.work(PUSH).ok();
}
