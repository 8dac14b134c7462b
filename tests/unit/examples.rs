//! The examples of `man/examples/` that need no engine.

use crate::common::{Scratch, root};

#[test]
fn change_that_widens_is_refused_and_one_that_narrows_is_not() {
    let scratch = Scratch::new();
    let script = format!(
        r#"
        manifest() {{
            printf '{{"version":1,"bottles":{{"dev":{{"image":"debian:12","egress":{{"routes":[{{"host":"api.example.com","methods":[%s]}}]}}}}}},"agents":{{"a":{{"bottle":"dev"}},"b":{{"bottle":"dev"}}}}}}' "$1" >bottle.yaml
        }}
        check() {{ '{}/man/examples/refuse-widening' HEAD a b; echo "code $?"; }}
        git init -q . && manifest '"GET","HEAD"' && git add . &&
            git -c user.name=t -c user.email=t@example.com commit -qm base
        check
        manifest '"GET"' && check
        manifest '"GET","POST"' && check
        echo 'version: 1' >bottle.yaml && check
        "#,
        root().display()
    );
    let said = scratch.sh(&script).run();
    let lost = "- egress: HEAD https://api.example.com:443/**\n";
    let gained = "+ egress: POST https://api.example.com:443/**\n";
    assert_eq!(
        said.stdout,
        format!("code 0\n{lost}{lost}code 0\n{gained}{lost}{gained}{lost}code 1\ncode 2\n"),
        "{}",
        said.report()
    );
    assert!(said.stderr.starts_with("refuse-widening: more may be done by: a b\nbottle-plan: "));
}
