//! Pictures against the reference's goldens: the HD image to the byte, token counts, global views.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use std::path::Path;

use common::{max_diff, safetensors_f32, shared, tolerances};
use phi3v::image::{
    HdGrid, ImageInputs, ImageLimits, ImageMode, ImageParams, RgbImage, Size, TILE_VALUES, decode,
    hd_transform, process,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn read(path: &Path) -> RgbImage {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    decode(&bytes, ImageMode::Reference, &ImageLimits::default())
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Every golden picture as the file gives it and, where there is one, as the reference's decoder left it.
fn goldens(golden: &Path) -> Vec<(String, Value, Vec<RgbImage>)> {
    let records = std::fs::read(golden.join("preproc.json")).unwrap();
    let records: Value = serde_json::from_slice(&records).unwrap();
    let load = |(file, record): (&String, &Value)| {
        let mut pictures = vec![read(&golden.join("images").join(file))];
        let decoded = golden.join("rgb").join(file).with_extension("png");
        if decoded.exists() {
            pictures.push(read(&decoded));
        }
        (file.clone(), record.clone(), pictures)
    };
    records.as_object().unwrap().iter().map(load).collect()
}

#[test]
fn decoded_pixels_are_identical() {
    let Some(golden) = shared("reference/golden") else { return };
    let goldens = goldens(&golden);
    assert_eq!(goldens.len(), 18);
    for (file, record, pictures) in goldens {
        for picture in pictures {
            assert_eq!(sha256(&picture.pixels), record["rgb_sha256"].as_str().unwrap(), "{file}");
        }
    }
}

#[test]
fn hd_images_are_identical() {
    let Some(golden) = shared("reference/golden") else { return };
    let mut checked = 0;
    for (file, record, pictures) in goldens(&golden) {
        for (num_crops, key) in [(1, "nc1"), (4, "nc4"), (16, "nc16")] {
            let expected = &record[key];
            for picture in &pictures {
                let hd = hd_transform(picture, num_crops).unwrap();
                let name = format!("{file} {key}");
                assert_eq!(sha256(&hd.pixels), expected["hd_rgb_sha256"].as_str().unwrap(), "{name}");
                let grid = HdGrid::of(picture.width, picture.height, num_crops).unwrap();
                let Size { width, height } = grid.image_size();
                assert_eq!([hd.width, hd.height], [width, height].map(|side| side as usize), "{name}");
                assert_eq!(Value::from(vec![height, width]), expected["image_sizes_hw"], "{name}");
                assert_eq!(Value::from(grid.num_img_tokens()), expected["num_img_tokens"], "{name}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 54, "{checked}");
}

fn mean_and_std(values: &[f32]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let squares = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
    (mean, (squares / (n - 1.0)).sqrt())
}

fn check_statistics(name: &str, inputs: &ImageInputs, expected: &Value) {
    for (i, tile) in inputs.pixel_values().chunks_exact(TILE_VALUES).enumerate() {
        let (mean, std) = mean_and_std(tile);
        let close = |ours: f64, key: &str| {
            let theirs = expected[key][i].as_f64().unwrap();
            let diff = (ours - theirs).abs();
            assert!(diff <= tolerances::TILE_STATISTICS, "{name} tile {i} {key}: {ours} and {theirs}");
        };
        close(mean, "tile_mean");
        close(std, "tile_std");
    }
}

#[test]
fn tiles_and_global_views_match() {
    let Some(golden) = shared("reference/golden") else { return };
    let views = safetensors_f32(&golden.join("global_views.safetensors"));
    let mut compared = 0;
    for (file, record, pictures) in goldens(&golden) {
        for (num_crops, key) in [(1, "nc1"), (4, "nc4"), (16, "nc16")] {
            let params = ImageParams { num_crops, ..ImageParams::default() };
            let inputs = process(&pictures[0], &params).unwrap();
            let name = format!("{file}|{key}");
            assert_eq!(Value::from(inputs.tile_of.len()), record[key]["tiles_used_incl_global"], "{name}");
            check_statistics(&name, &inputs, &record[key]);
            if let Some(view) = views.get(&name) {
                let diff = max_diff(&inputs.pixel_values()[..TILE_VALUES], view);
                assert!(diff <= tolerances::GLOBAL_VIEW, "{name}: {diff}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, views.len());
}
