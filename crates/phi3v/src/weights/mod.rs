//! A checkpoint's tensors: mapped, checked against [`table`], and accessed by name.
//!
//! Opening reads only headers; no weight is touched, copied or converted before the model asks for it. After
//! [`Weights::open`], every tensor of the table that the model text reads is present exactly once, with its shape and a
//! format the table allows. So a damaged or foreign file is refused before anything is computed.

pub mod convert;
pub mod digest;
mod dtype;
mod error;
pub mod names;
pub mod quantized;
mod random;
mod safetensors;
pub mod shards;
pub mod table;

pub use error::WeightsError;
pub use random::weights_bytes;

use crate::config::ModelConfig;
use crate::files::Files;
use digest::AllCores;
use half::{bf16, f16};
use phi3v_kernels::{Bytes, Format, MatrixSource, Precision};
use quantized::Quant;
use safetensors::{Entry, SafetensorsFile};
use shards::Shards;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use table::TensorSpec;

/// One tensor: its bytes in the mapped file, its shape, and its format.
#[derive(Clone, Debug)]
pub struct TensorView {
    /// How the values are stored.
    pub format: Format,
    /// The shape in the table, whatever the format.
    pub shape: Vec<usize>,
    /// The stored values; a view into the file.
    pub bytes: Bytes,
}

/// A tensor found in the files, not yet checked against the table.
struct Found {
    file: String,
    entry: Entry,
    /// Whether the file is in phi3v's own format, in which `U8` means packed panels.
    packed: bool,
}

/// All tensors of a checkpoint that the model text reads, mapped and checked against the table.
#[derive(Debug)]
pub struct Weights {
    tensors: HashMap<String, TensorView>,
    bytes_total: u64,
    dtype: Format,
}

impl Weights {
    /// Maps the checkpoint in `dir`: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// [`WeightsError`], naming the file or tensor: if a file is missing, repeated or damaged, or if a tensor is missing,
    /// unknown, repeated, or of another shape or dtype than `config` requires.
    pub fn open(dir: &Path, config: &ModelConfig) -> Result<Self, WeightsError> {
        Self::load(&Files::Folder(dir.to_owned()), config)
    }

    /// Reads the weights from a single safetensors file's bytes.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn from_bytes(bytes: Bytes, config: &ModelConfig) -> Result<Self, WeightsError> {
        let file = shards::SINGLE_FILE.to_owned();
        Self::from_shards(&[(file, bytes)], BTreeMap::new(), config)
    }

    /// Loads the weights among `files`: from one file, or from the shards that an index names.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn load(files: &Files, config: &ModelConfig) -> Result<Self, WeightsError> {
        let Shards { names, index } = shards::find(files)?;
        let mut shards = Vec::with_capacity(names.len());
        for file in names {
            let Some(bytes) = files.get(&file)? else {
                return Err(WeightsError::MissingFile { file, location: files.location() });
            };
            shards.push((file, bytes));
        }
        Self::from_shards(&shards, index, config)
    }

    /// `index` names the expected file of each tensor; it may be empty. Only the tensors of the table are kept, and all others
    /// are ignored or refused, so that the contents of all headers are never in memory together.
    fn from_shards(
        files: &[(String, Bytes)],
        index: BTreeMap<String, String>,
        config: &ModelConfig,
    ) -> Result<Self, WeightsError> {
        let (specs, mut unseen) = (table::tensors(config), index);
        let known: HashSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let mut found: HashMap<String, Found> = HashMap::new();
        for (file, bytes) in files {
            let SafetensorsFile { tensors, metadata } = safetensors::parse(file, bytes)?;
            let packed = quantized::is_packed(file, &metadata)?;
            for entry in tensors {
                let name = entry.name.clone();
                if unseen.get(&name) == Some(file) {
                    unseen.remove(&name);
                }
                if !known.contains(name.as_str()) {
                    if table::is_ignored(&name) {
                        continue;
                    }
                    return Err(WeightsError::Extra { name, file: file.clone() });
                }
                let tensor = Found { file: file.clone(), entry, packed };
                if let Some(first) = found.insert(name.clone(), tensor) {
                    return Err(WeightsError::Duplicate { name, first: first.file, second: file.clone() });
                }
            }
        }
        if let Some((name, file)) = unseen.pop_first() {
            return Err(WeightsError::NotInShard { name, file });
        }
        Self::check(found, specs)
    }

    /// Takes the tensors of the table out of `found`.
    fn check(mut found: HashMap<String, Found>, specs: Vec<TensorSpec>) -> Result<Self, WeightsError> {
        let mut tensors = HashMap::new();
        let mut bytes_of: HashMap<Format, u64> = HashMap::new();
        for spec in specs {
            let Some(tensor) = found.remove(&spec.name) else {
                if spec.used {
                    return Err(WeightsError::Missing { name: spec.name });
                }
                continue;
            };
            let view = view(tensor, &spec)?;
            if spec.used {
                *bytes_of.entry(view.format).or_default() += view.bytes.len() as u64;
                tensors.insert(spec.name, view);
            }
        }
        let bytes_total = bytes_of.values().sum();
        let commonest = bytes_of.iter().max_by_key(|(_, bytes)| **bytes).map(|(format, _)| *format);
        // a small model has more bytes in its vision tower, but is still named after its decoder
        let decoders = Quant::ALL.into_iter().filter(|quant| !quant.is_uniform()).map(Quant::decoder_format);
        let decoders = decoders.rev().find(|format| bytes_of.contains_key(format));
        Ok(Self { tensors, bytes_total, dtype: decoders.or(commonest).unwrap_or(Format::Bf16) })
    }

    /// Returns the tensor with the given full name.
    ///
    /// # Errors
    /// [`WeightsError::Missing`] for a name that is not in the table or is marked unused there.
    pub fn tensor(&self, name: &str) -> Result<&TensorView, WeightsError> {
        self.tensors.get(name).ok_or_else(|| WeightsError::Missing { name: name.to_owned() })
    }

    /// Returns the matrix `{name}.weight`, with `{name}.bias` if the layer has one. A convolution's
    /// `[n, channels, height, width]` is returned as `[n, channels * height * width]`.
    ///
    /// ```
    /// use phi3v::kernels::Precision;
    ///
    /// let checkpoint = phi3v::checkpoint::Checkpoint::from_files(&phi3v::demo::files())?;
    /// let lm_head = checkpoint.weights.linear("lm_head", Precision::Bf16)?;
    /// assert_eq!([lm_head.n, lm_head.k], [checkpoint.config.vocab_size, checkpoint.config.hidden_size]);
    /// # Ok::<(), phi3v::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`WeightsError::Missing`] for a name that is not in the table or is marked unused there.
    pub fn linear(&self, name: &str, precision: Precision) -> Result<MatrixSource, WeightsError> {
        let weight = self.tensor(&names::weight(name))?;
        let bias = names::bias(name);
        let bias = self.tensors.contains_key(&bias).then(|| self.vector(&bias)).transpose()?;
        Ok(MatrixSource {
            bytes: weight.bytes.clone(),
            format: weight.format,
            precision,
            n: weight.shape[0],
            k: weight.shape[1..].iter().product(),
            bias,
        })
    }

    /// Returns all values of the tensor with the given full name, widened to f32, in the order of the file.
    ///
    /// # Errors
    /// [`WeightsError::Missing`] for a name that is not in the table or is marked unused there, [`WeightsError::NotDense`] for
    /// a quantized matrix.
    pub fn vector(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let view = self.tensor(name)?;
        let mut values = Vec::new();
        if widen(&view.bytes, view.format, &mut values) {
            return Ok(values);
        }
        Err(WeightsError::NotDense { name: name.to_owned() })
    }

    /// Adds names, formats, shapes and bytes of all tensors to a digest, in the order of their names.
    pub(crate) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        let cores = AllCores::new();
        let mut names: Vec<&String> = self.tensors.keys().collect();
        names.sort_unstable();
        for name in names {
            let TensorView { format, shape, bytes } = &self.tensors[name];
            hasher.update(format!("{name} {format:?} {shape:?} {}\n", bytes.len()).as_bytes());
            cores.update(hasher, bytes);
        }
    }

    /// Returns the stored bytes of all tensors that the model text reads.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total
    }

    /// Returns the format that holds most of the bytes. If any matrix has a format that is allowed only in the decoder, such
    /// as `Q4`, returns that format instead.
    #[must_use]
    pub fn dtype(&self) -> Format {
        self.dtype
    }

    /// Returns the quantization of the checkpoint; `None` for dense weights.
    #[must_use]
    pub fn quant(&self) -> Option<Quant> {
        Quant::of(self.dtype)
    }
}

/// Checks one tensor against its entry in the table.
fn view(tensor: Found, spec: &TensorSpec) -> Result<TensorView, WeightsError> {
    let Found { file, entry, packed } = tensor;
    if packed && entry.dtype == "U8" {
        return quantized::view(&file, entry, spec);
    }
    let Some(format) = dtype::dense(&entry.dtype) else {
        return Err(WeightsError::Dtype { file, name: entry.name, dtype: entry.dtype });
    };
    if entry.shape != spec.shape {
        let (name, expected) = (entry.name, spec.shape.clone());
        return Err(WeightsError::Shape { file, name, found: entry.shape, expected });
    }
    Ok(TensorView { format, shape: entry.shape, bytes: entry.bytes })
}

/// Writes dense values to `out` as f32; returns false for a quantized format.
fn widen(bytes: &[u8], format: Format, out: &mut Vec<f32>) -> bool {
    out.clear();
    let pairs = bytes.as_chunks::<2>().0.iter();
    match format {
        Format::F32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw))),
        Format::F16 => out.extend(pairs.map(|raw| f16::from_le_bytes(*raw).to_f32())),
        Format::Bf16 => out.extend(pairs.map(|raw| bf16::from_le_bytes(*raw).to_f32())),
        Format::Q8 | Format::Q4 => return false,
    }
    true
}
