//! Hints about the library's errors. It knows no command line: where a flag or a command is what helps, it is named here.

use crate::error::Unfit;
use phi3v::Error;
use phi3v::checkpoint::CheckpointError;
use phi3v::config::ConfigError;
use phi3v::decide::{CalibrationError, DecideError};
use phi3v::device::DeviceError;
use phi3v::engine::EngineError;
use phi3v::error::count;
use phi3v::image::ImageError;
use phi3v::kernels::{BackendError, CpuError};
use phi3v::memory::{CONTEXT_DEFAULT_MIN, MemoryError};
use phi3v::sampler::SamplerError;
use phi3v::weights::WeightsError;
use phi3v::weights::convert::ConvertError;

/// What the user can do about an error of the library.
pub(super) fn hint(error: &Error) -> Option<String> {
    let hint = match error.root() {
        Error::Engine(EngineError::ContextLength { .. }) => {
            "shorten the text, use --detail low or fewer pictures, lower --max-new-tokens, or raise --context"
        }
        Error::Engine(EngineError::NoNewTokens) => "ask for at least one token with --max-new-tokens",
        Error::Backend(BackendError::OutOfMemory { .. }) => {
            "choose a smaller context with --context, or close other programs"
        }
        Error::Backend(BackendError::Device { .. }) => {
            "ask again, or run it on the processor with --device cpu"
        }
        Error::Decide(DecideError::ChoiceCount { .. }) => "give two answers or more with --choices yes,no",
        Error::Calibration(CalibrationError::Malformed { .. }) => "give a file that phi3v calibrate wrote",
        Error::Calibration(CalibrationError::OtherModel { .. }) => {
            "calibrate with the same --model, --quant, --dtype, --kv and --detail, or leave --calibration out"
        }
        Error::Sampler(SamplerError::BadLogit { .. }) => {
            "check the checkpoint's files, as phi3v pull does of a downloaded model, and the copies quantized from them, or try \
             --dtype f32 if they are right"
        }
        Error::Device(DeviceError::Cpu(error)) => return cpu(error),
        Error::Memory(error) => return memory(error),
        Error::Image(error) => return image(error),
        Error::Checkpoint(error) => return checkpoint(error),
        Error::Config(error) => return config(error),
        Error::Weights(error) | Error::Convert(ConvertError::Weights(error)) => return weights(error),
        other => return other.hint(),
    };
    Some(hint.to_owned())
}

/// What the user can do where a prompt and its answer are known before a model is loaded, and no `--context` is.
pub(super) fn hint_of_fixed(error: &Error) -> String {
    match error.root() {
        // whatever is asked
        Error::Memory(MemoryError::TooLittle { fits: 0, .. }) => {
            "close other programs, choose a smaller model or another device with --device, or ask for less at once"
        }
        _ => "shorten the prompt, use fewer or smaller pictures (--num-crops), or lower --max-new-tokens",
    }
    .to_owned()
}

/// What the user can do where a model's speed is to be measured.
pub(super) fn hint_of_bench(error: &Error) -> Option<String> {
    let hint = match error.root() {
        Error::Memory(MemoryError::TooLittle { .. }) | Error::Backend(BackendError::OutOfMemory { .. }) => {
            "close other programs, choose a smaller --format or --model, lower --depth, or take --kv q8"
        }
        Error::Memory(_) => "lower --depth, or take the smallest keys and values, --kv q8",
        _ => return hint(error),
    };
    Some(hint.to_owned())
}

impl Unfit {
    /// What the user can do about it, one sentence: first what is known to fit.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let MemoryError::TooLittle { context, fits, .. } = self.error else { return memory(&self.error) };
        let q4 = self.q4_context.map(|fits| match fits < context {
            true => format!("take --quant q4 with --context {fits}"),
            false => format!("take --quant q4, which fits with a context of {}", count(fits, "token")),
        });
        let shorter = (fits >= CONTEXT_DEFAULT_MIN)
            .then(|| format!("choose a smaller context, up to --context {fits}"));
        let elsewhere = self.on_processor.then(|| "run it on the processor with --device cpu".to_owned());
        let ways: Vec<String> = [shorter, q4, elsewhere].into_iter().flatten().collect();
        if ways.is_empty() {
            return memory(&self.error);
        }
        Some(format!("{}, or close other programs", ways.join(", ")))
    }
}

/// What the user can do about the processor's refusal.
fn cpu(error: &CpuError) -> Option<String> {
    match error {
        CpuError::Threads { .. } => Some("leave --threads out for one thread per physical core".to_owned()),
        CpuError::Spawn(_) => Some("ask for fewer threads with --threads".to_owned()),
        other => other.hint(),
    }
}

/// What the user can do about a picture.
pub(super) fn image(error: &ImageError) -> Option<String> {
    let flag = match error {
        ImageError::Bytes { bytes: 1.., .. } => "--max-image-bytes",
        ImageError::Pixels { .. } => "--max-pixels",
        ImageError::Side { .. } => "--max-side",
        ImageError::Frames { .. } => {
            return error
                .hint()
                .map(|hint| hint.replace("raise the limit", "raise the limit with --max-frames"));
        }
        ImageError::TooNarrow { .. } => {
            return Some("crop the picture, or allow more crops with --num-crops".to_owned());
        }
        other => return other.hint(),
    };
    Some(format!("scale the picture down, or raise the limit with {flag} if you trust the file"))
}

fn memory(error: &MemoryError) -> Option<String> {
    Some(match error {
        MemoryError::TooLittle { fits, .. } if *fits >= CONTEXT_DEFAULT_MIN => {
            format!("choose a smaller context, up to --context {fits}, or close other programs")
        }
        MemoryError::TooLittle { .. } => {
            "close other programs, or choose a smaller model with --model".to_owned()
        }
        MemoryError::BufferTooSmall { fits, .. } => {
            format!(
                "choose at most {} with --context, or another device with --device",
                count(*fits, "token")
            )
        }
        MemoryError::ContextTooLong { limit, .. } => {
            format!("choose a context of at most {limit} with --context")
        }
        MemoryError::HeadsTooLarge { .. } => {
            "run it on the processor with --device cpu, which takes heads of any size".to_owned()
        }
        MemoryError::NoContext => {
            "choose a context with --context, or leave it out to have one chosen by free memory".to_owned()
        }
        other => return other.hint(),
    })
}

fn checkpoint(error: &CheckpointError) -> Option<String> {
    match error {
        CheckpointError::NoFolder { .. } | CheckpointError::MissingFile { .. } => Some(
            "fetch a checkpoint with phi3v pull phi-3.5-vision, or give a folder with config.json, tokenizer.json, \
             preprocessor_config.json and model*.safetensors"
                .to_owned(),
        ),
        CheckpointError::Config(error) => config(error),
        CheckpointError::Weights(error) => weights(error),
        other => other.hint(),
    }
}

/// Where the original weights come from.
const ORIGINAL: &str = "use the original checkpoint: phi3v pull phi-3.5-vision";

fn config(error: &ConfigError) -> Option<String> {
    let hint = match error {
        ConfigError::Quantized { .. } => ORIGINAL,
        ConfigError::TooLarge { .. }
        | ConfigError::Json { .. }
        | ConfigError::NotAnObject { .. }
        | ConfigError::Missing { .. }
        | ConfigError::Value { .. } => {
            "the file may be damaged or incomplete; fetch it again with phi3v pull, or compare it with the hub's"
        }
        other => return other.hint(),
    };
    Some(hint.to_owned())
}

fn weights(error: &WeightsError) -> Option<String> {
    let hint = match error {
        WeightsError::NoWeights { .. } => {
            "phi3v reads safetensors files; fetch a checkpoint with phi3v pull phi-3.5-vision, or give its folder"
        }
        WeightsError::MissingFile { .. }
        | WeightsError::Truncated { .. }
        | WeightsError::TruncatedTensor { .. } => {
            "the download may have been interrupted; fetch the file again, or run phi3v pull, which resumes"
        }
        WeightsError::Dtype { .. } | WeightsError::NotDense { .. } => ORIGINAL,
        WeightsError::NotWhole { .. } => {
            "give the folder of the checkpoint, or a file made by phi3v quantize"
        }
        other => return other.hint(),
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_flag_or_a_command_can_mend_names_it() {
        let errors: Vec<(Error, &str)> = vec![
            (EngineError::ContextLength { prompt: 1, answer: 2, context: 2 }.into(), "or raise --context"),
            (EngineError::NoNewTokens.into(), "--max-new-tokens"),
            (BackendError::OutOfMemory { bytes: 7 }.into(), "smaller context with --context"),
            (SamplerError::BadLogit { token: 1, value: f32::NAN }.into(), "--dtype f32"),
            (MemoryError::NoContext.into(), "with --context"),
            (MemoryError::ContextTooLong { context: 9, limit: 8 }.into(), "at most 8 with --context"),
            (too_little(4096).into(), "up to --context 4096"),
            (too_little(0).into(), "with --model"),
            (ImageError::TooNarrow { width: 1, height: 900, num_crops: 1 }.into(), "--num-crops"),
            (CheckpointError::NoFolder { location: "x".into() }.into(), "phi3v pull phi-3.5-vision"),
            (WeightsError::NotWhole { file: "x".into() }.into(), "phi3v quantize"),
        ];
        for (error, words) in errors {
            let library = error.hint().unwrap_or_default();
            assert!(!library.contains(words), "the library's own hint: {library}");
            let shared = Error::Shared(std::sync::Arc::new(error));
            let hint = hint(&shared).unwrap_or_default();
            assert!(hint.contains(words), "{shared}: {hint}");
        }
        let words = |error: CpuError| cpu(&error).unwrap_or_default();
        let unknown = "x".parse::<phi3v::kernels::CpuLevel>().unwrap_err();
        assert!(words(CpuError::Threads { asked: 0 }).contains("--threads"));
        assert!(words(unknown.into()).contains("PHI3V_CPU"));
    }

    #[test]
    fn what_cannot_fit_is_not_told_to_ask_for_less() {
        let fixed = |error: Error| hint_of_fixed(&error);
        assert!(fixed(too_little(0).into()).contains("smaller model"));
        assert!(fixed(too_little(1).into()).contains("shorten the prompt"));
        assert!(
            fixed(EngineError::ContextLength { prompt: 1, answer: 2, context: 2 }.into()).contains("shorten")
        );
        let bench = |error: Error| hint_of_bench(&error).unwrap_or_default();
        for error in [Error::from(too_little(9)), BackendError::OutOfMemory { bytes: 7 }.into()] {
            let told = bench(error);
            assert!(told.contains("--format") && !told.contains("--context"), "{told}");
        }
        assert!(
            bench(MemoryError::ContextTooLong { context: 9, limit: 8 }.into()).starts_with("lower --depth")
        );
        assert!(bench(BackendError::Device { reason: String::new() }.into()).contains("--device cpu"));
    }

    #[test]
    fn what_would_fit_is_named() {
        let hint = |fits, q4_context, on_processor| {
            Unfit { error: too_little(fits), q4_context, on_processor }.hint().unwrap()
        };
        assert_eq!(hint(0, None, false), "close other programs, or choose a smaller model with --model");
        assert_eq!(
            hint(4096, None, false),
            "choose a smaller context, up to --context 4096, or close other programs"
        );
        // that of the refusal is 8192 tokens
        assert_eq!(
            hint(0, Some(8192), false),
            "take --quant q4, which fits with a context of 8192 tokens, or close other programs"
        );
        assert_eq!(
            hint(2048, Some(4096), true),
            "choose a smaller context, up to --context 2048, take --quant q4 with --context 4096, run it on the processor with \
             --device cpu, or close other programs"
        );
        let other = Unfit::from(MemoryError::NoContext);
        assert_eq!(other.hint(), memory(&MemoryError::NoContext));
    }

    fn too_little(fits: usize) -> MemoryError {
        MemoryError::TooLittle { needed: 2, available: 1, context: 8192, fits }
    }
}
