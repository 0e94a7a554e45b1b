//! What turns texts and pictures into what a model reads, and ids into text, without the model's weights.

use crate::errors;
use crate::hub::Hub;
use crate::picture::{Picture, Reading, read};
use crate::source::Source;
use crate::work;
use phi3v::image::ImageParams;
use phi3v::processor;
use phi3v::tokenizer::Tokenizer;
use phi3v_cli::error::CliError;
use phi3v_cli::interrupt::Interrupt;
use phi3v_cli::runtime;
use phi3v_cli::sources::PAGES_UNASKED_MAX;
use pyo3::prelude::*;
use std::sync::Arc;

/// Texts and pictures to ids and tiles, and ids to text.
#[pyclass(frozen, skip_from_py_object, module = "phi3v._phi3v")]
#[derive(Clone)]
pub(crate) struct Processor {
    /// What the model is called.
    #[pyo3(get)]
    pub(crate) name: String,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) params: ImageParams,
}

/// Opens the model of that name, downloading it where need be, and reads what is beside its weights.
#[pyfunction]
#[pyo3(signature = (model, hub=None))]
pub(crate) fn open_processor(py: Python<'_>, model: String, hub: Option<Hub>) -> PyResult<Processor> {
    let hub = work::held(py, || hub.unwrap_or_default().options())?;
    Interrupt::leave_to_host();
    let given_up = Arc::clone(&hub.given_up);
    let open = move || {
        let checkpoint = runtime::checkpoint(&model, &hub)?;
        let (name, tokenizer) = (checkpoint.name.clone(), Arc::clone(&checkpoint.tokenizer));
        Ok(Processor { name, tokenizer, params: checkpoint.preprocessor })
    };
    work::beside(py, &given_up, open)
}

#[pymethods]
impl Processor {
    /// Most tiles that a picture is cut into.
    #[getter]
    fn num_crops(&self) -> usize {
        self.params.num_crops
    }

    /// The same, with pictures cut into at most `num_crops` tiles.
    fn with_num_crops(&self, py: Python<'_>, num_crops: usize) -> PyResult<Self> {
        let params = work::held(py, || self.params.with_num_crops(num_crops))?;
        Ok(Self { params, ..self.clone() })
    }

    /// The id of `<s>`.
    #[getter]
    fn bos_id(&self, py: Python<'_>) -> PyResult<u32> {
        work::held(py, || self.tokenizer.bos_id())
    }

    /// The ids of `<|end|>` and `<|endoftext|>`.
    #[getter]
    fn stop_ids(&self, py: Python<'_>) -> PyResult<[u32; 2]> {
        work::held(py, || self.tokenizer.stop_ids())
    }

    /// One more than the largest id.
    #[getter]
    fn vocab_size(&self, py: Python<'_>) -> PyResult<usize> {
        work::held(py, || self.tokenizer.vocab_size())
    }

    /// Ids of a raw text: `<s>` first, special tokens in it are read.
    fn encode(&self, py: Python<'_>, text: &str) -> PyResult<Vec<u32>> {
        work::outside(py, || Ok(self.tokenizer.encode_raw(text)))
    }

    /// Text of ids, by the reference's rules. Ids that are none, as those of pictures, give nothing.
    fn decode(&self, py: Python<'_>, ids: Vec<i64>, skip_special_tokens: bool) -> PyResult<String> {
        work::outside(py, || {
            let ids: Vec<u32> = ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect();
            Ok(self.tokenizer.decode(&ids, skip_special_tokens))
        })
    }

    /// The id of a token by its text.
    fn token_id(&self, py: Python<'_>, token: &str) -> PyResult<Option<u32>> {
        work::held(py, || self.tokenizer.token_id(token))
    }

    /// The text of a token, as tokenizer.json spells it.
    fn token(&self, py: Python<'_>, id: i64) -> PyResult<Option<String>> {
        work::held(py, || self.tokenizer.token(u32::try_from(id).ok()?))
    }

    /// Ids of a raw prompt with the pictures `pictures`, `-i` at the rows of picture i.
    fn raw_prompt(&self, py: Python<'_>, prompt: &str, pictures: Vec<Py<Picture>>) -> PyResult<Vec<i64>> {
        let rows = || pictures.iter().map(|picture| picture.get().inputs.num_img_tokens()).collect();
        let rows: Vec<usize> = work::held(py, rows)?;
        let ids = work::outside(py, || Ok(processor::raw_prompt(&self.tokenizer, prompt, &rows)))?;
        ids.map_err(|error| errors::exception(py, &CliError::from(phi3v::Error::from(error))))
    }

    /// Reads a picture, or the pages of a document.
    fn pictures(&self, py: Python<'_>, source: &Source, reading: Reading) -> PyResult<Vec<Picture>> {
        read(py, source, &reading, &self.params, PAGES_UNASKED_MAX)
    }

    /// Reads one picture: of a document its only page, or the first that was chosen.
    fn picture(&self, py: Python<'_>, source: &Source, reading: Reading) -> PyResult<Picture> {
        let pictures = read(py, source, &reading, &self.params, 1)?;
        pictures.into_iter().next().ok_or_else(|| work::bug(py, "the file has no page"))
    }
}
