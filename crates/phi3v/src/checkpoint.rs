//! A checkpoint: everything in a model's folder, read and checked together.

use crate::config::{ConfigError, GenerationConfig, ModelConfig};
use crate::files::{Files, ReadError};
use crate::image::ImageParams;
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::weights::{Weights, WeightsError, quantized};
use phi3v_kernels::Bytes;
use std::path::Path;
use std::sync::Arc;

/// Why a folder is not a checkpoint that phi3v can run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The folder does not exist, or the path is not a folder.
    #[error("there is no folder {location}")]
    NoFolder {
        /// The path that was given.
        location: String,
    },
    /// A file is missing.
    #[error("{location} is not a whole checkpoint: it has no {file}")]
    MissingFile {
        /// Path of the folder.
        location: String,
        /// Name of the file.
        file: &'static str,
    },
    /// The folder holds changes to a model, and no model.
    #[error("{location} holds an adapter of a model and no whole checkpoint")]
    Adapter {
        /// Path of the folder.
        location: String,
    },
    /// The tokenizer produces ids for which the model has no embedding.
    #[error("tokenizer.json has ids up to {last}, and vocab_size in config.json is {vocab_size}")]
    Vocabulary {
        /// Largest id of the tokenizer.
        last: usize,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A configuration file was refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file tokenizer.json was refused.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The weights were refused.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl CheckpointError {
    /// Returns what the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoFolder { .. } | Self::MissingFile { .. } => {
                "give a folder with config.json, tokenizer.json, preprocessor_config.json and model*.safetensors"
            }
            Self::Adapter { .. } => {
                "merge it into the model that it was trained on, with merge_and_unload of peft, and give the folder where \
                 that is saved"
            }
            Self::Vocabulary { .. } => {
                "the folder holds files of different models; fetch the checkpoint again"
            }
            Self::Read(_) => "check that the file can be read",
            Self::Config(error) => return error.hint(),
            Self::Tokenizer(error) => return error.hint(),
            Self::Weights(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}

/// What peft writes beside the weights of an adapter.
const ADAPTER_FILE: &str = "adapter_config.json";

/// A model's configuration, tokenizer and weights, read and checked together; the tensors' data is not read yet.
#[derive(Debug)]
pub struct Checkpoint {
    /// The name of the model: its folder, or `org/name` if the folder is in the hub's cache.
    pub name: String,
    /// Shapes and settings of the model, from config.json.
    pub config: ModelConfig,
    /// The contents of generation_config.json, which Phi-3-vision's hub folder does not have.
    pub generation: GenerationConfig,
    /// How images are cut, from preprocessor_config.json.
    pub preprocessor: ImageParams,
    /// Text to ids and back, from tokenizer.json.
    pub tokenizer: Arc<Tokenizer>,
    /// The tensors, mapped, from model*.safetensors.
    pub weights: Weights,
    /// BLAKE3 digest of the JSON files from which the other fields were read.
    pub settings_digest: [u8; 32],
}

impl Checkpoint {
    /// Reads the checkpoint in the folder `dir`, or the quantized file at that path ([`crate::weights::quantized`]).
    /// The weights are mapped but not read yet.
    ///
    /// ```
    /// use phi3v::checkpoint::{Checkpoint, CheckpointError};
    ///
    /// let nowhere = Checkpoint::open("no-such-folder".as_ref());
    /// assert!(matches!(nowhere, Err(CheckpointError::NoFolder { .. })));
    /// ```
    ///
    /// # Errors
    /// [`CheckpointError`], naming the file that is missing or wrong.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        if dir.is_file() {
            return Self::from_files(&quantized::open(dir)?);
        }
        if !dir.is_dir() {
            return Err(CheckpointError::NoFolder { location: dir.display().to_string() });
        }
        Self::from_files(&Files::Folder(dir.to_owned()))
    }

    /// Reads a checkpoint from any source of files.
    ///
    /// ```
    /// let checkpoint = phi3v::checkpoint::Checkpoint::from_files(&phi3v::demo::files())?;
    /// assert_eq!((checkpoint.name.as_str(), checkpoint.config.num_hidden_layers), ("demo", 4));
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`CheckpointError`], naming the file that is missing or wrong.
    pub fn from_files(files: &Files) -> Result<Self, CheckpointError> {
        Self::read(files).map_err(|error| match error {
            CheckpointError::MissingFile { .. }
            | CheckpointError::Weights(WeightsError::NoWeights { .. })
                if matches!(files.get(ADAPTER_FILE), Ok(Some(_))) =>
            {
                CheckpointError::Adapter { location: files.location() }
            }
            error => error,
        })
    }

    fn read(files: &Files) -> Result<Self, CheckpointError> {
        let mut settings = Settings::default();
        let config = settings.read(&required(files, "config.json")?, ModelConfig::from_json)?;
        let preprocessor = required(files, "preprocessor_config.json")?;
        let preprocessor = settings.read(&preprocessor, ImageParams::from_json)?;
        let generation = match files.get("generation_config.json")? {
            Some(bytes) => settings.read(&bytes, GenerationConfig::from_json)?,
            None => GenerationConfig::default(),
        };
        let tokenizer = settings.read(&required(files, "tokenizer.json")?, Tokenizer::from_json)?;
        if tokenizer.vocab_size() > config.vocab_size {
            let (last, vocab_size) = (tokenizer.vocab_size() - 1, config.vocab_size);
            return Err(CheckpointError::Vocabulary { last, vocab_size });
        }
        let weights = Weights::load(files, &config)?;
        let (name, tokenizer) = (files.model_name(), Arc::new(tokenizer));
        let settings_digest = settings.digest.finalize().into();
        Ok(Self { name, config, generation, preprocessor, tokenizer, weights, settings_digest })
    }

    /// Identifies the model by its contents: the BLAKE3 digest, in 64 hexadecimal digits, of its JSON files and of every tensor
    /// as stored. Reads all weights, on all cores.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.settings_digest);
        self.weights.hash_into(&mut hasher);
        hasher.finalize().to_hex().to_string()
    }

    /// Returns every id that ends generation, sorted: the tokenizer's `<|end|>` and `<|endoftext|>`, and those in the two
    /// configuration files. With the ids in the hub's files alone, the models would not stop.
    #[must_use]
    pub fn stop_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.tokenizer.stop_ids().into();
        ids.extend(&self.config.eos_token_id);
        ids.extend(&self.generation.eos_token_id);
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// The digest of the JSON files that were read.
#[derive(Default)]
struct Settings {
    digest: blake3::Hasher,
}

impl Settings {
    /// Reads a file, and then adds it to the digest. Readers refuse files that are too long by their length, so such a file's
    /// contents are never touched.
    fn read<T, E: Into<CheckpointError>>(
        &mut self,
        bytes: &Bytes,
        from_json: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<T, CheckpointError> {
        let read = from_json(bytes).map_err(Into::into)?;
        self.digest.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        Ok(read)
    }
}

fn required(files: &Files, file: &'static str) -> Result<Bytes, CheckpointError> {
    files.get(file)?.ok_or_else(|| CheckpointError::MissingFile { location: files.location(), file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_told_from_a_checkpoint_that_lacks_a_file() {
        let whole = crate::demo::files();
        let open = |names: &[&str]| {
            let files = names.iter().map(|name| {
                let bytes = whole.get(name).unwrap().unwrap_or_else(|| Bytes::from(b"{}".to_vec()));
                ((*name).to_owned(), bytes)
            });
            let files = Files::Memory { name: "x".to_owned(), files: files.collect() };
            Checkpoint::from_files(&files).map(|_| ()).map_err(|error| error.to_string())
        };
        let adapter = Err("x holds an adapter of a model and no whole checkpoint".to_owned());
        let missing = Err("x is not a whole checkpoint: it has no config.json".to_owned());
        let beside = ["config.json", "preprocessor_config.json", "tokenizer.json"];
        assert_eq!(open(&["tokenizer.json"]), missing);
        assert_eq!(open(&["tokenizer.json", ADAPTER_FILE]), adapter);
        assert_eq!(open(&[&beside[..], &[ADAPTER_FILE]].concat()), adapter);
        // trained on here, perhaps, and merged since
        assert_eq!(open(&[&beside[..], &[ADAPTER_FILE, "model.safetensors"]].concat()), Ok(()));
    }
}
