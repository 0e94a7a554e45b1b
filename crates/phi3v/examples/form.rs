//! Asks about an image in the form of a preset, and tells how sure the model was of each value:
//! `cargo run --release -p phi3v --example form -- IMAGE [PRESET [MODEL_FOLDER]]`.

use phi3v::constraint::{ConstraintFactory, Grammar, GrammarLimits};
use phi3v::fields::fields;
use phi3v::presets::Preset;
use std::ops::ControlFlow;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [image, more @ ..] = arguments.as_slice() else { return Err("give an image".into()) };
    let preset = Preset::named(more.first().map_or("@alt", String::as_str));
    let preset = preset.ok_or_else(|| format!("there are the presets {}", Preset::names()))?;
    let mut session = phi3v::load(more.get(1).map_or("demo", String::as_str))?;
    session.generation.sampling.logprobs = Some(0);
    let image = session.image(image)?;
    let mut request = session.preparer().ask([image], preset.question())?;
    let form = Grammar::JsonSchema(preset.schema());
    let factory = ConstraintFactory::new(session.tokenizer(), GrammarLimits::default())?;
    request.constraint = Some(Box::new(factory.constraint(&form)?));
    let answer = session.run(request, &mut |_| ControlFlow::Continue(()))?;
    println!("{}", answer.text);
    for field in fields(&form, &answer.tokens, &answer.finished.text) {
        eprintln!("{}: {:.2}", field.path, field.p);
    }
    Ok(())
}
