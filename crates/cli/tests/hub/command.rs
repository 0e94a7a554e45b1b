//! `phi3v pull` as people run it.

use crate::fixture::{COMMIT, Hub, MODEL, TOKEN};
use phi3v_cli::hub::OFFLINE_VARIABLES;
use std::process::{Command, Output};

fn pull(hub: &Hub, model: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phi3v"));
    command.args(["pull", MODEL]).env_remove("PHI3V_MODEL");
    for name in OFFLINE_VARIABLES {
        command.env_remove(name);
    }
    let (endpoint, cache) = (&hub.main.url, hub.cache.path());
    command.env("HF_ENDPOINT", endpoint).env("HF_HUB_CACHE", cache).env("HF_TOKEN", TOKEN);
    command.env("NO_PROXY", "*").envs(model.map(|model| ("PHI3V_MODEL", model)));
    command.output().unwrap()
}

#[test]
fn what_was_pulled_is_told_how_to_ask() {
    let hub = Hub::start();
    let told = |output: Output| {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        let dir = hub.repo().join("snapshots").join(COMMIT);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{}\n", dir.display()));
        stderr
    };
    let setting = if cfg!(windows) { "$env:PHI3V_MODEL = 'org/tiny'" } else { "export PHI3V_MODEL=org/tiny" };
    let note = format!("use it with --model org/tiny, or for all commands: {setting}\n");
    for other in [None, Some("demo")] {
        let stderr = told(pull(&hub, other));
        assert!(stderr.ends_with(&note), "{stderr}");
    }
    let stderr = told(pull(&hub, Some(MODEL)));
    assert!(!stderr.contains("use it with"), "{stderr}");
}
