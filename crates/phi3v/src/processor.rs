//! Converts prompts with images to the ids that the model reads. Each position of image i holds -i.
//!
//! The reference cuts a prompt at its image tags and tokenizes every chunk alone. Each chunk therefore begins with `<s>`
//! and with its own stretch: chunk, image, `<s>` chunk, image, `<s>` chunk. [`reference_ids`] does exactly that with a
//! raw prompt. [`chat_prompt`] builds the same ids from messages without ever searching text for special tokens, so what
//! a user types remains text.
//!
//! Deliberate differences from the reference: the number in a tag chooses the image, also out of order (the reference
//! fills the rows in image order), and an image used twice is refused here rather than in the forward pass.

use regex::Regex;
use std::sync::LazyLock;

use crate::chat_template::{Message, Part, Role, assistant_is_next};
use crate::error::count;
use crate::tokenizer::{AddedToken, Tokenizer};

/// Why a prompt is refused: its image numbers do not match the images, it has no message, or it does not end with a
/// question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessorError {
    /// The image numbers have a gap or do not begin at 1.
    #[error("image numbers must be 1, 2, 3 and so on without a gap, got {}", list(.numbers))]
    ImageNumbers {
        /// The numbers in the prompt, each once, ascending.
        numbers: Vec<u64>,
    },
    /// The number of images differs from that of the tags.
    #[error("the prompt names {named} and {given} given", named = count(*.tags, "image"), given = count_given(*.images))]
    ImageCount {
        /// Number of different image numbers in the prompt.
        tags: usize,
        /// Number of images that were given.
        images: usize,
    },
    /// The same image occurs in several places.
    #[error("image {number} stands {times} times in the prompt, the limit is 1")]
    RepeatedImage {
        /// The image's number, from 1.
        number: u64,
        /// How often it occurs.
        times: usize,
    },
    /// The conversation has no message.
    #[error("the conversation has no message, at least 1 is needed")]
    NoMessages,
    /// An answer is requested, but the last message is not a question.
    #[error("the last message is the {}'s, it must be the user's", .last.name())]
    NoQuestion {
        /// The role of the last message.
        last: Role,
    },
}

impl ProcessorError {
    /// What the user can do about the error.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::ImageNumbers { .. } => "number the pictures from <|image_1|> on, in any order".to_owned(),
            Self::ImageCount { .. } => {
                "give one picture for every <|image_N|> and name every picture once".to_owned()
            }
            Self::RepeatedImage { .. } => {
                "refer to the picture in words, or give it twice under two numbers".to_owned()
            }
            Self::NoMessages | Self::NoQuestion { .. } => "add a message with a question".to_owned(),
        })
    }
}

/// Returns the ids of a raw prompt, recognizing added tokens and image tags. `num_img_tokens[i - 1]` is the number of
/// positions of image i. Without images, the whole prompt is text, image tags included.
///
/// # Errors
/// [`ProcessorError`] if the image numbers have gaps, do not match the images, or repeat.
pub fn raw_prompt(
    tokenizer: &Tokenizer,
    prompt: &str,
    num_img_tokens: &[usize],
) -> Result<Vec<i64>, ProcessorError> {
    if !num_img_tokens.is_empty() {
        let numbers: Vec<u64> = image_tags(prompt).map(|tag| tag.number).collect();
        check_numbers(&numbers, num_img_tokens.len())?;
        check_once(&numbers)?;
    }
    reference_ids(tokenizer, prompt, num_img_tokens)
}

/// Returns the ids of a raw prompt exactly as the reference's processor does, which allows an image in several places.
/// The model cannot run such a prompt; use [`raw_prompt`] for anything but comparisons.
///
/// # Errors
/// [`ProcessorError`] if the reference's assertions would fail: image numbers have gaps or do not match the images.
pub fn reference_ids(
    tokenizer: &Tokenizer,
    prompt: &str,
    num_img_tokens: &[usize],
) -> Result<Vec<i64>, ProcessorError> {
    let chunk_ids = |chunk: &str| tokenizer.encode_raw(chunk).into_iter().map(i64::from);
    if num_img_tokens.is_empty() {
        return Ok(chunk_ids(prompt).collect());
    }
    let tags: Vec<ImageTag> = image_tags(prompt).collect();
    let numbers: Vec<u64> = tags.iter().map(|tag| tag.number).collect();
    check_numbers(&numbers, num_img_tokens.len())?;

    let mut ids = Vec::new(); // [num_tokens]
    let mut chunk_start = 0;
    for tag in &tags {
        ids.extend(chunk_ids(&prompt[chunk_start..tag.start]));
        push_image(&mut ids, tag.number as usize, num_img_tokens);
        chunk_start = tag.end;
    }
    ids.extend(chunk_ids(&prompt[chunk_start..]));
    Ok(ids)
}

/// Returns the ids of a conversation. Text parts never become special tokens or images. For text without such strings,
/// the ids equal those of [`raw_prompt`] on [`crate::chat_template::render`].
///
/// ```
/// use phi3v::chat_template::{Message, Part};
///
/// let tokenizer = phi3v::checkpoint::Checkpoint::from_files(&phi3v::demo::files())?.tokenizer;
/// let message = Message::user([Part::Image(1), Part::Text("What is it?".to_owned())]);
/// let ids = phi3v::processor::chat_prompt(&tokenizer, &[message], &[313])?;
/// assert_eq!(ids.iter().filter(|&&id| id == -1).count(), 313);
/// # Ok::<(), phi3v::Error>(())
/// ```
///
/// # Errors
/// [`ProcessorError`] if there is no message, or if the image numbers have gaps, do not match the images, or repeat.
pub fn chat_prompt(
    tokenizer: &Tokenizer,
    messages: &[Message],
    num_img_tokens: &[usize],
) -> Result<Vec<i64>, ProcessorError> {
    if messages.is_empty() {
        return Err(ProcessorError::NoMessages);
    }
    let parts = messages.iter().flat_map(|message| &message.content);
    let numbers: Vec<u64> = parts
        .filter_map(|part| match part {
            Part::Image(number) => Some(*number as u64),
            Part::Text(_) => None,
        })
        .collect();
    check_numbers(&numbers, num_img_tokens.len())?;
    check_once(&numbers)?;

    let template = tokenizer.template();
    let mut prompt = PromptBuilder::new(tokenizer);
    for Message { role, content } in messages {
        prompt.added(match role {
            Role::System => template.system,
            Role::User => template.user,
            Role::Assistant => template.assistant,
        });
        prompt.text("\n");
        for part in content {
            match part {
                Part::Text(text) => prompt.text(text),
                Part::Image(number) => prompt.image(*number, num_img_tokens),
            }
        }
        prompt.added(template.end);
        prompt.text("\n");
    }
    if assistant_is_next(messages) {
        prompt.added(template.assistant);
        prompt.text("\n");
    }
    Ok(prompt.finish())
}

/// Returns the ids of a whole answer to a conversation whose ids [`chat_prompt`] has made: the answer's text, and the
/// token that ends an answer. The conversation continues with these ids once the assistant has given the answer.
///
/// ```
/// let tokenizer = phi3v::checkpoint::Checkpoint::from_files(&phi3v::demo::files())?.tokenizer;
/// let ids = phi3v::processor::answer_ids(&tokenizer, "yes");
/// assert_eq!(ids.last(), Some(&tokenizer.stop_ids()[0]));
/// assert_eq!(tokenizer.decode(&ids, true), "yes");
/// # Ok::<(), phi3v::Error>(())
/// ```
#[must_use]
pub fn answer_ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let template = tokenizer.template();
    let mut answer = PromptBuilder::new(tokenizer);
    answer.added(template.assistant);
    let before = answer.ids.len();
    answer.text("\n");
    answer.text(text);
    answer.added(template.end);
    answer.finish().into_iter().skip(before).filter_map(|id| u32::try_from(id).ok()).collect()
}

/// Joins stretches of text, added tokens and images as ids, the way the tokenizer would cut the rendered text.
struct PromptBuilder<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<i64>, // [num_tokens]
    /// The current stretch: all text since the last added token or image.
    stretch: String,
    /// Whether the added token before the stretch swallows leading white space.
    after_rstrip: bool,
}

impl<'a> PromptBuilder<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        let ids = vec![i64::from(tokenizer.bos_id())];
        Self { tokenizer, ids, stretch: String::new(), after_rstrip: false }
    }

    fn text(&mut self, text: &str) {
        self.stretch.push_str(text);
    }

    fn added(&mut self, token: AddedToken) {
        self.end_stretch(token.lstrip);
        self.ids.push(i64::from(token.id));
        self.after_rstrip = token.rstrip;
    }

    fn image(&mut self, number: usize, num_img_tokens: &[usize]) {
        self.end_stretch(false);
        push_image(&mut self.ids, number, num_img_tokens);
        self.ids.push(i64::from(self.tokenizer.bos_id()));
        self.after_rstrip = false;
    }

    fn end_stretch(&mut self, before_lstrip: bool) {
        let mut text = self.stretch.as_str();
        if self.after_rstrip {
            text = text.trim_start();
        }
        if before_lstrip {
            text = text.trim_end();
        }
        self.ids.extend(self.tokenizer.encode_plain(text).into_iter().map(i64::from));
        self.stretch.clear();
    }

    fn finish(mut self) -> Vec<i64> {
        self.end_stretch(false);
        self.ids
    }
}

/// Appends image `number` (from 1, checked) as a run of its negated number.
fn push_image(ids: &mut Vec<i64>, number: usize, num_img_tokens: &[usize]) {
    let run = num_img_tokens[number - 1];
    ids.extend(std::iter::repeat_n(-(number as i64), run));
}

/// Checks that the different numbers are 1, 2, .. and as many as there are images.
fn check_numbers(numbers: &[u64], images: usize) -> Result<(), ProcessorError> {
    let mut unique = numbers.to_vec();
    unique.sort_unstable();
    unique.dedup();
    if !unique.iter().copied().eq(1..=unique.len() as u64) {
        return Err(ProcessorError::ImageNumbers { numbers: unique });
    }
    if unique.len() != images {
        return Err(ProcessorError::ImageCount { tags: unique.len(), images });
    }
    Ok(())
}

/// Checks that no image occurs in two places.
fn check_once(numbers: &[u64]) -> Result<(), ProcessorError> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let repeated = sorted.chunk_by(|a, b| a == b).find(|same| same.len() > 1);
    match repeated {
        Some(same) => Err(ProcessorError::RepeatedImage { number: same[0], times: same.len() }),
        None => Ok(()),
    }
}

/// An image tag in a raw prompt, with its byte offsets.
struct ImageTag {
    start: usize,
    end: usize,
    number: u64,
}

/// Finds the image tags of a raw prompt: any decimal digits of Unicode, leading zeros allowed, as the reference reads
/// them.
fn image_tags(prompt: &str) -> impl Iterator<Item = ImageTag> {
    static TAG: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"<\|image_(\d+)\|>").expect("the pattern is a constant"));
    TAG.captures_iter(prompt).map(|captures| {
        let [whole, digits] = [0, 1].map(|i| captures.get(i).expect("both groups always take part"));
        ImageTag { start: whole.start(), end: whole.end(), number: decimal(digits.as_str()) }
    })
}

/// The value of decimal digits of any script. A value beyond `u64` becomes its maximum, which is never a valid number.
fn decimal(digits: &str) -> u64 {
    digits
        .chars()
        .fold(0u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit_value(digit))))
}

/// The value of a decimal digit. Unicode encodes every script's digits as a block of ten in order, so the value is the
/// distance from the start of the block; blocks may touch, hence modulo ten.
fn digit_value(digit: char) -> u32 {
    static DIGIT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\d$").expect("the pattern is a constant"));
    if let Some(value) = digit.to_digit(10) {
        return value;
    }
    let mut before = [0u8; 4];
    let distance = (1..)
        .take_while(|&step| {
            char::from_u32(digit as u32 - step).is_some_and(|c| DIGIT.is_match(c.encode_utf8(&mut before)))
        })
        .count();
    distance as u32 % 10
}

fn list(numbers: &[u64]) -> String {
    let words: Vec<String> = numbers.iter().take(LISTED_MAX).map(u64::to_string).collect();
    let more = if numbers.len() > LISTED_MAX { ", .." } else { "" };
    format!("{}{more}", words.join(", "))
}

/// Most numbers listed in an error, which must fit on one line; the message cuts longer lists.
const LISTED_MAX: usize = 16;

fn count_given(n: usize) -> String {
    if n == 1 { "1 is".to_owned() } else { format!("{n} are") }
}
