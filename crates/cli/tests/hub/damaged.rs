//! What is in the cache and not what the hub has, or not where phi3v itself puts it.

use crate::fixture::{Heard, Hub, MODEL, WEIGHTS, contents, etag};
use crate::nth;
use crate::server::Reply;
use phi3v_cli::hub::{HubOptions, ModelSource, resolve};
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicUsize;

/// Writes as many other bytes in the place of a file's.
fn damage(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, vec![0; bytes.len()]).unwrap();
}

#[test]
fn what_is_damaged_in_the_cache_is_downloaded_again() {
    let hub = Hub::start();
    let dir = hub.download();
    let options = HubOptions { refresh: true, ..hub.options() };
    for name in ["config.json", "model.safetensors.index.json", WEIGHTS] {
        damage(&hub.blob(name));
        // as a program that was only looking has left it
        let heard = Heard::default();
        let source = resolve(MODEL, &options, &mut heard.clone()).unwrap();
        assert_eq!(source, ModelSource::Folder(dir.clone()));
        hub.check(&dir);
        let told = format!("{name} in the cache is damaged and is downloaded again");
        assert_eq!(heard.all().iter().filter(|heard| heard.contains("damaged")).collect::<Vec<_>>(), [&told]);
        let total: usize =
            [WEIGHTS, "model-00002-of-00002.safetensors"].map(|n| hub.contents[n].len()).iter().sum();
        let started = heard.all().contains(&format!("start {MODEL} {total}"));
        assert_eq!(started, name == WEIGHTS, "{:?}", heard.all());
    }
    hub.storage.forget();
    let heard = Heard::default();
    resolve(MODEL, &options, &mut heard.clone()).unwrap();
    assert!(hub.storage.requests().is_empty(), "what is right is left alone");
    assert!(!heard.all().iter().any(|heard| heard.contains("damaged")));
}

#[test]
fn what_is_damaged_stays_until_there_is_something_in_its_place() {
    let count = AtomicUsize::new(0);
    let hub = Hub::bent(contents(), move |request, reply| match nth(request, &count) {
        Some(1..) => Reply { cut: Some(0), ..reply },
        _ => reply,
    });
    let dir = hub.download();
    damage(&hub.blob(WEIGHTS));
    let options = HubOptions { refresh: true, ..hub.options() };
    let heard = Heard::default();
    assert_eq!(resolve(MODEL, &options, &mut heard.clone()).unwrap(), ModelSource::Folder(dir.clone()));
    assert!(
        heard.all().iter().any(|heard| heard.contains("using the copy in the cache")),
        "{:?}",
        heard.all()
    );
    let bytes = fs::read(dir.join(WEIGHTS)).unwrap();
    assert_eq!(bytes, vec![0; hub.contents[WEIGHTS].len()]);
}

/// Moves what the cache has of a file to where its link is, as the hub's tools do where there are no links.
fn moved(hub: &Hub, dir: &Path, name: &str) {
    fs::remove_file(dir.join(name)).unwrap();
    fs::rename(hub.blob(name), dir.join(name)).unwrap();
}

#[test]
fn a_file_without_a_blob_is_used() {
    let hub = Hub::start();
    let dir = hub.download();
    let wanted: Vec<_> = hub.contents.keys().filter(|name| dir.join(name).exists()).collect();
    for name in &wanted {
        moved(&hub, &dir, name);
    }
    for noted in [true, false] {
        if !noted {
            fs::remove_dir_all(hub.cache.path().join(".locks")).unwrap();
        }
        hub.storage.forget();
        hub.main.forget();
        let heard = Heard::default();
        let options = HubOptions { refresh: true, ..hub.options() };
        resolve(MODEL, &options, &mut heard.clone()).unwrap();
        hub.check(&dir);
        assert!(
            hub.storage
                .requests()
                .iter()
                .chain(&hub.main.requests())
                .all(|asked| asked.method == "HEAD" || asked.path.starts_with("/api/"))
        );
        assert!(!heard.all().iter().any(|heard| heard.starts_with("start")), "{:?}", heard.all());
    }
    assert_eq!(fs::read_dir(hub.repo().join("blobs")).unwrap().count(), 0);
    // of which one is cut short
    fs::write(dir.join(WEIGHTS), "PK").unwrap();
    let options = HubOptions { refresh: true, ..hub.options() };
    resolve(MODEL, &options, &mut Heard::default()).unwrap();
    hub.check(&dir);
    assert_eq!(hub.starts(WEIGHTS), [0]);
}

/// Where there are no links, two files may be damaged each by itself, or both as one, or there is but one.
#[test]
fn a_damaged_copy_in_the_place_of_a_link_is_replaced() {
    for (copied, damaged) in
        [("linked", "both"), ("copied", "copy"), ("copied", "both"), ("moved", "copy"), ("copied", "blob")]
    {
        let hub = Hub::start();
        let dir = hub.download();
        let (blob, path) = (hub.blob(WEIGHTS), dir.join(WEIGHTS));
        fs::remove_file(&path).unwrap();
        match copied {
            "linked" => fs::hard_link(&blob, &path).unwrap(),
            "moved" => fs::rename(&blob, &path).unwrap(),
            _ => drop(fs::copy(&blob, &path).unwrap()),
        }
        if damaged != "blob" {
            damage(&path);
        }
        if matches!(damaged, "both" | "blob") {
            damage(&blob);
        }
        hub.storage.forget();
        let options = HubOptions { refresh: true, ..hub.options() };
        resolve(MODEL, &options, &mut Heard::default()).unwrap();
        hub.check(&dir);
        let fetched = damaged == "both" || copied == "moved";
        assert_eq!(hub.starts(WEIGHTS).len(), usize::from(fetched), "{copied} {damaged}");
    }
}

#[test]
fn a_file_that_was_found_right_is_not_read_again_until_it_changes() {
    let hub = Hub::start();
    let dir = hub.download();
    let checked = hub.cache.path().join(".locks/models--org--tiny");
    let checked = checked.join(etag(WEIGHTS, &hub.contents[WEIGHTS]) + ".checked");
    let options = HubOptions { refresh: true, ..hub.options() };
    let pull = || resolve(MODEL, &options, &mut Heard::default()).unwrap();
    assert!(checked.is_file(), "what was downloaded was checked");
    fs::remove_file(&checked).unwrap();
    pull();
    assert!(checked.is_file(), "as another program's download is, once");
    // a note of the file as it is now is believed
    damage(&hub.blob(WEIGHTS));
    fs::write(&checked, phi3v_cli::identity::identity_of(&hub.blob(WEIGHTS)).unwrap()).unwrap();
    pull();
    assert_ne!(fs::read(dir.join(WEIGHTS)).unwrap(), hub.contents[WEIGHTS]);
    fs::write(&checked, "of another time").unwrap();
    pull();
    hub.check(&dir);
}
