//! Stands in for the graphics cards in a build that supports none.

use super::{Card, Device, DeviceChoice, DeviceError, DeviceOptions};

pub(super) fn cards() -> Vec<Card> {
    Vec::new()
}

pub(super) fn card(_: &Device) -> Option<Card> {
    None
}

pub(super) fn automatic(_: &DeviceOptions, _: &mut dyn FnMut(&str)) -> Option<Device> {
    None
}

pub(super) fn open(choice: &DeviceChoice, _: &DeviceOptions) -> Result<Device, DeviceError> {
    let name = choice.to_string();
    Err(match choice {
        DeviceChoice::Named(_) => DeviceError::unknown(&name, &[]),
        _ => DeviceError::NoCards { name },
    })
}
