//! Where pictures come from: files and stdin named by a user, and the addresses in requests. Addresses are data URLs,
//! files below one folder, or on hosts that were allowed by name.
//!
//! Commands and server read pictures here, each with its own limits. Each frontend adds its own advice about a
//! [`SourceError`] or a [`NamedImageError`].

mod addresses;
mod budget;
mod data_url;
mod error;
mod folder;
mod grab;
mod held;
mod hosts;
mod image;
mod named;
mod public;
mod thumbnail;
mod turns;

pub use addresses::Sources;
pub use budget::{Budget, Inputs, SourceLimits};
pub use error::{BudgetError, DataUrlFault, FetchFault, NamedImageError, SourceError, Unallowed};
pub use grab::{Grab, GrabError};
pub use held::Held;
pub use hosts::{AllowedHost, Fetcher};
pub use image::{ImageReport, NamedImage, file_and_page, page_name, times_of};
pub use named::{
    DATA_URL, ImageOptions, PAGES_UNASKED_MAX, as_data_url, as_url, caught, check_addresses, check_names,
    http_url, pages_of, read_ahead, read_data_url, read_grabbed, read_image, read_images, read_named,
    read_page, read_pages, useless_flags,
};
pub use thumbnail::thumbnail;
pub use turns::{Turn, Turns};
