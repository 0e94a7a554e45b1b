//! Allocates memory for pixels. A file states their number, within limits that a user may have raised. If the
//! allocation fails, the picture gets an error and the process continues.

use super::error::ImageError;
use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_vec;

/// Returns `len` zeros, which take no memory until they are overwritten: a short file that states a large picture
/// takes little.
///
/// # Errors
/// [`ImageError::OutOfMemory`].
pub(super) fn zeros<T: Zeroable>(len: usize) -> Result<Vec<T>, ImageError> {
    try_zeroed_vec(len).map_err(|()| refused::<T>(len))
}

/// Returns an empty vector with capacity for `len` values.
///
/// # Errors
/// [`ImageError::OutOfMemory`].
pub(super) fn room<T>(len: usize) -> Result<Vec<T>, ImageError> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| refused::<T>(len))?;
    Ok(values)
}

/// Returns `len` copies of `value`.
///
/// # Errors
/// As for [`room`].
pub(super) fn filled<T: Clone>(len: usize, value: T) -> Result<Vec<T>, ImageError> {
    let mut values = room(len)?;
    values.resize(len, value);
    Ok(values)
}

/// Collects `values`, which must be `len` in number.
///
/// # Errors
/// As for [`room`].
pub(super) fn gathered<T>(len: usize, values: impl Iterator<Item = T>) -> Result<Vec<T>, ImageError> {
    let mut gathered = room(len)?;
    gathered.extend(values);
    Ok(gathered)
}

fn refused<T>(len: usize) -> ImageError {
    ImageError::OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_an_error() {
        // the first exceeds the capacity of any vector, the second the memory of any machine
        for len in [usize::MAX, usize::MAX / 16] {
            let (one, four) =
                [1, 4].map(|size| ImageError::OutOfMemory { bytes: len.saturating_mul(size) }).into();
            assert_eq!(zeros::<f32>(len), Err(four.clone()));
            assert_eq!(filled(len, [7_u8; 4]), Err(four));
            assert_eq!(gathered(len, [1_u8].into_iter()), Err(one));
        }
        assert_eq!(zeros::<u8>(3), Ok(vec![0; 3]));
        assert_eq!(filled(3, 7_u8), Ok(vec![7; 3]));
        let gathered = gathered(6, [1_u8, 2].into_iter().flat_map(|value| [value; 3])).unwrap();
        assert_eq!((gathered.as_slice(), gathered.capacity()), ([1, 1, 1, 2, 2, 2].as_slice(), 6));
    }
}
