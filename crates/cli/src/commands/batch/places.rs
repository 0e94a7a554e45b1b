//! Checks the files that a batch writes: paths are distinct, none is an input, and foreign tables are kept.

use crate::args::BatchArgs;
use crate::batch::BatchError;
use crate::batch::inputs::Inputs;
use crate::output::{is_part_of, source_of};
use crate::paths::{folded, folder_of, lead_to_one_place};
use phi3v::files::Existing;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// A sidecar file.
pub(super) struct Beside {
    /// Name of the picture.
    pub(super) input_id: String,
    pub(super) path: PathBuf,
}

/// Refuses an output that would be written twice, or over an input.
///
/// # Errors
/// [`BatchError::Flags`], naming the flag and the file.
pub(super) fn check(args: &BatchArgs, found: &Inputs, sidecars: &[Beside]) -> Result<(), BatchError> {
    let named =
        [("--out", Some(&args.out)), ("--csv", args.csv.as_ref()), ("--parquet", args.parquet.as_ref())];
    let outputs: Vec<FlagFile> =
        named.into_iter().filter_map(|(flag, path)| FlagFile::of(flag, path)).collect();
    let read: HashSet<&Path> = match found {
        Inputs::Pictures { items, .. } => items.iter().map(|item| Path::new(&item.source)).collect(),
        Inputs::Lines(_) => args.inputs.iter().map(Path::new).collect(),
    };
    let told = told_files(args);
    for (index, output) in outputs.iter().enumerate() {
        if let Some(other) =
            outputs[..index].iter().find(|other| lead_to_one_place(&other.path, &output.path))
        {
            let message = format!("{} and {} name one file, {}", other.flag, output.flag, output.shown());
            return refused(message, "give each a file of its own");
        }
        if read.iter().any(|input| is_place_of(input, output)) {
            let message = format!("{} names a file that is asked about, {}", output.flag, output.shown());
            return refused(message, "give another file");
        }
        if let Some(told) = told.iter().find(|told| is_place_of(&told.path, output)) {
            let message = format!("{} names the file of {}, {}", output.flag, told.flag, output.shown());
            return refused(message, "give another file");
        }
        if is_part_of(&source_of(&args.model.model), &output.path) {
            let message = format!("{} names a part of the model, {}", output.flag, output.shown());
            return refused(message, "give another file");
        }
    }
    if sidecars.is_empty() { Ok(()) } else { check_sidecars(&outputs, &read, &told, sidecars) }
}

/// The input files that flags name.
fn told_files(args: &BatchArgs) -> Vec<FlagFile> {
    let is_preset = |name: &&PathBuf| name.as_os_str().as_encoded_bytes().starts_with(b"@");
    let schema = args.form.schema.as_ref().filter(|name| !is_preset(name));
    let named = [("--questions", args.questions.as_ref()), ("--schema", schema)];
    named.into_iter().filter_map(|(flag, path)| FlagFile::of(flag, path)).collect()
}

/// Refuses sidecar files that would be written twice, or over an input or a file in `told`.
fn check_sidecars(
    outputs: &[FlagFile],
    read: &HashSet<&Path>,
    told: &[FlagFile],
    sidecars: &[Beside],
) -> Result<(), BatchError> {
    let mut names = Names::default();
    let read_names: HashSet<PathBuf> = read.iter().map(|path| names.of(path)).collect();
    let told: Vec<_> = told.iter().map(|told| (told.flag, names.of(&told.path))).collect();
    let mut written = HashMap::new();
    for Beside { input_id, path } in sidecars {
        let (shown, name) = (path.display(), names.of(path));
        if read_names.contains(&name) {
            let message = format!("--sidecar would write over a file that is asked about, {shown}");
            return refused(message, "give the file another name, or leave --sidecar out");
        }
        if let Some((flag, _)) = told.iter().find(|(_, file)| *file == name) {
            let message = format!("--sidecar would write over the file of {flag}, {shown}");
            return refused(message, "give the file another name, or leave --sidecar out");
        }
        if let Some(output) = outputs.iter().find(|output| is_place_of(path, output)) {
            let message = format!("--sidecar and {} name one file, {shown}", output.flag);
            return refused(message, "give the results another file");
        }
        if let Some(other) = written.insert(name, input_id) {
            let message = format!("--sidecar would write {shown} twice, for {other} and for {input_id}");
            return refused(message, "name each picture once, and all of a folder in the same way");
        }
    }
    Ok(())
}

/// Maps all paths to the same file, through whatever folders, to one name. Each folder is looked up once.
#[derive(Default)]
struct Names(HashMap<PathBuf, PathBuf>);

impl Names {
    fn of(&mut self, path: &Path) -> PathBuf {
        let folder = folder_of(path);
        if !self.0.contains_key(folder) {
            let real = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
            self.0.insert(folder.to_owned(), real);
        }
        folded(self.0[folder].join(path.file_name().unwrap_or_default()))
    }
}

/// How to treat an existing table at `path`: if the job is `resumed`, a table written by a batch, as recognized by
/// `is_table`, is replaced.
pub(super) fn existing_table(
    path: &Path,
    is_table: fn(&Path) -> bool,
    resumed: bool,
    force: bool,
) -> Existing {
    if force || (resumed && is_table(path)) { Existing::Replace } else { Existing::Keep }
}

/// A file that a flag names.
struct FlagFile {
    flag: &'static str,
    path: PathBuf,
}

impl FlagFile {
    /// The file of a flag, if it was given.
    fn of(flag: &'static str, path: Option<&PathBuf>) -> Option<Self> {
        Some(Self { flag, path: path?.clone() })
    }

    fn shown(&self) -> impl std::fmt::Display {
        self.path.display()
    }
}

fn refused(message: String, hint: &'static str) -> Result<(), BatchError> {
    Err(BatchError::Flags { message, hint })
}

/// Whether one of many paths is that of an output. Most differ in their names, so the disk need not be accessed.
fn is_place_of(path: &Path, output: &FlagFile) -> bool {
    path.file_name().map(folded) == output.path.file_name().map(folded)
        && lead_to_one_place(path, &output.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::table::is_csv;

    #[test]
    fn an_output_is_known_by_all_names_of_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("in")).unwrap();
        std::fs::write(path("a"), "x").unwrap();
        let output = FlagFile { flag: "--out", path: path("a") };
        assert!(is_place_of(&path("in/../a"), &output));
        assert!(!is_place_of(&path("b"), &output) && !is_place_of(&path("in/a"), &output));
        assert_eq!(is_place_of(&path("A"), &output), path("A").exists());
    }

    #[test]
    fn a_place_has_one_name_whatever_leads_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("in/deep")).unwrap();
        let mut names = Names::default();
        let mut name = |path: &str| names.of(&dir.path().join(path));
        assert_eq!(name("in/a.txt"), name("./in/deep/../a.txt"));
        assert_ne!(name("in/a.txt"), name("in/deep/a.txt"));
        assert_eq!(name("nowhere/a.txt"), name("nowhere/a.txt"));
    }

    #[test]
    fn only_tables_of_a_batch_are_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        for (text, kept) in [
            ("custom_id,answer,finish_reason,error\r\n", Existing::Replace),
            ("custom_id,question,answer,finish_reason,error,total\r\na", Existing::Replace),
            ("custom_id,answer\r\n", Existing::Keep),
            ("custom_id,answer,finish_reason,errors\r\n", Existing::Keep),
            ("custom_id", Existing::Keep),
            ("", Existing::Keep),
        ] {
            std::fs::write(&path, text).unwrap();
            let existing = |resumed, force| existing_table(&path, is_csv, resumed, force);
            assert_eq!(existing(true, false), kept, "{text}");
            assert_eq!(existing(false, false), Existing::Keep);
            assert_eq!(existing(false, true), Existing::Replace);
        }
    }
}
