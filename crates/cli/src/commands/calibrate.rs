//! `phi3v calibrate`: fits a temperature for each question to labelled pictures.

use super::decide::scores;
use crate::answer;
use crate::args::CalibrateArgs;
use crate::batch::meter::Meter;
use crate::decide::Asked;
use crate::decide::labels::{self, LabelledPicture, Labels};
use crate::error::CliError;
use crate::interrupt::Interrupt;
use crate::output::{check_inputs, check_out, source_of};
use crate::report::calibration_table;
use crate::runtime::{self, Runtime};
use crate::sources::{self, ImageOptions};
use crate::tell;
use crate::terminal::print;
use phi3v::batch::read_ahead;
use phi3v::decide::{Calibration, Fitted, Labelled};
use phi3v::files::{Existing, NewFile};
use std::ffi::OsString;
use std::path::Path;
use std::slice;

/// Asks about all pictures, fits the temperatures, writes the file and prints the improvement.
///
/// # Errors
/// [`CliError`]: labels, a picture or the model cannot be used, the file cannot be written, or Ctrl-C was pressed.
pub(super) fn run(args: &CalibrateArgs) -> Result<(), CliError> {
    if args.prompt.as_deref().is_some_and(|prompt| prompt.trim().is_empty()) {
        return Err(CliError::EmptyPrompt);
    }
    let existing = args.overwrite.existing();
    check_out(&args.out, existing, &source_of(&args.model.model))?;
    let labels = labels::find(&args.labels, args.prompt.as_deref())?;
    let images: Vec<_> = labels.pictures.iter().map(|picture| picture.image.clone()).collect();
    check_inputs(&args.out, images.iter().map(Path::new).chain([args.labels.as_path()]))?;
    // missing pictures are skipped like damaged ones; if all are missing, no model is loaded
    sources::check_addresses(&images, &args.picture.allow_url)?;
    let is_there =
        |image: &OsString| sources::check_names(slice::from_ref(image), &args.picture.allow_url).is_ok();
    if !images.iter().any(is_there) {
        sources::check_names(&images, &args.picture.allow_url)?;
    }
    let opened = runtime::open(&args.model, &args.context, |own| args.picture.num_crops(own))?;
    opened.tell_demo();
    opened.tell_memory(false);
    let model = opened.scoring(&args.model).words(|own| args.picture.num_crops(own));
    let options = args.picture.options(&opened.checkpoint.preprocessor);
    let mut runtime = opened.load(&args.model)?;
    let examples = examples(&mut runtime, &labels, options)?;
    let fitted = labels.questions.iter().zip(examples);
    let fitted =
        fitted.map(|(asked, examples)| Fitted::new(asked.prompt.clone(), asked.choices.clone(), &examples));
    let calibration = Calibration::new(model, fitted.collect());
    let json = calibration.to_json();
    let written = write(&args.out, &json, existing);
    // if the disk is full, the result of a long run is still printed
    let told = if args.json { json } else { calibration_table(&calibration) };
    print(told).map_err(CliError::Output).and(written)
}

fn write(out: &Path, json: &str, existing: Existing) -> Result<(), CliError> {
    let failed = |error| CliError::written(error, json.len() as u64);
    let mut file = NewFile::create(out, existing).map_err(failed)?;
    file.write(json.as_bytes()).and_then(|()| file.flush()).map_err(failed)?;
    file.finish().map_err(failed)
}

/// Scores each question's labelled pictures. A picture that cannot be used is reported and skipped.
///
/// # Errors
/// A question has no usable picture, the model fails, or Ctrl-C was pressed.
fn examples(
    runtime: &mut Runtime,
    labels: &Labels,
    options: ImageOptions,
) -> Result<Vec<Vec<Labelled>>, CliError> {
    let images: Vec<_> = labels.pictures.iter().map(|picture| picture.image.clone()).collect();
    // a single thread keeps them in order
    let coming =
        read_ahead(images, 1, move |image| sources::caught(|| sources::read_image(&image, &options)))?;
    let interrupt = Interrupt::install();
    interrupt.begin_answer();
    // scores are never cut
    let mut meter = Meter::new(labels.pictures.len(), "");
    let mut examples = vec![Vec::new(); labels.questions.len()];
    let mut refused = None;
    for LabelledPicture { labels: of_picture, .. } in &labels.pictures {
        let picture = match answer::next_picture(&coming, &interrupt) {
            Ok(picture) => picture,
            Err(error @ CliError::Picture(_)) => {
                meter.row(true, false);
                meter.above(|| tell!("left out: {error}"));
                refused.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        meter.above(|| picture.tell_incomplete());
        let asked: Vec<&Asked> = of_picture.iter().map(|label| &labels.questions[label.question]).collect();
        let answered = scores(runtime, &[picture], &asked, &interrupt)?;
        for (label, log_probs) in of_picture.iter().zip(answered.finished.scores) {
            examples[label.question].push(Labelled { log_probs, right: label.right });
        }
        meter.row(false, false);
    }
    meter.finish(0, false);
    match refused {
        Some(error) if examples.iter().any(Vec::is_empty) => Err(error),
        _ => Ok(examples),
    }
}
