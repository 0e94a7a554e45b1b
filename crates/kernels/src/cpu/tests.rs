//! Tests of the backend's start, and of kernels that no operation exposes directly.

use super::table::kv::KvRows;
use super::*;
use crate::KvFormat;
use crate::testing::{Noise, Variant, variants};

#[test]
fn the_level_is_clamped_downwards_only() {
    use CpuLevel::{Avx2, Avx512, Scalar};
    assert_eq!(choose_level(None, None, Avx512).unwrap(), Avx512);
    assert_eq!(choose_level(None, Some("avx2"), Avx512).unwrap(), Avx2);
    assert_eq!(choose_level(Some(Scalar), Some("avx2"), Avx512).unwrap(), Scalar);
    assert_eq!(choose_level(None, Some("avx512"), Avx2).unwrap(), Avx2);
}

#[test]
fn an_empty_level_is_none_and_its_case_does_not_matter() {
    for clamp in ["", " "] {
        assert_eq!(choose_level(None, Some(clamp), CpuLevel::Avx2).unwrap(), CpuLevel::Avx2);
    }
    assert_eq!(choose_level(None, Some("Scalar"), CpuLevel::Avx2).unwrap(), CpuLevel::Scalar);
}

#[test]
fn impossible_levels_are_named() {
    let unknown = choose_level(None, Some("sse9"), CpuLevel::Avx2).unwrap_err();
    assert_eq!(unknown.to_string(), "unknown CPU level \"sse9\"");
    assert_eq!(
        unknown.hint().unwrap(),
        "PHI3V_CPU may be scalar, avx2, avx512 or amx, and neon, dotprod or i8mm on ARM"
    );
    let missing = choose_level(Some(CpuLevel::Avx512), None, CpuLevel::Avx2).unwrap_err();
    assert_eq!(missing.to_string(), "this processor has CPU level avx2, not avx512");
}

#[test]
fn no_level_stands_above_those_of_another_architecture() {
    use CpuLevel::{Avx2, Dotprod, I8mm, Neon, Scalar};
    assert_eq!(choose_level(None, Some("neon"), I8mm).unwrap(), Neon);
    assert_eq!(choose_level(Some(Scalar), Some("dotprod"), Dotprod).unwrap(), Scalar);
    let missing = choose_level(None, Some("avx2"), Dotprod).unwrap_err();
    assert_eq!(missing.to_string(), "this processor has CPU level dotprod, not avx2");
    assert!(choose_level(Some(Neon), None, Avx2).is_err());
}

#[test]
fn zero_threads_are_refused() {
    let refused = Cpu::new(&CpuOptions { threads: Some(0), level: None }).err().unwrap();
    assert_eq!(refused.to_string(), "0 threads were asked for, the limit is 1 to 1024");
}

#[test]
fn features_can_only_be_taken_away() {
    let options = CpuOptions { threads: Some(1), level: None };
    let level = |features| Cpu::with_features(&options, features).unwrap().level();
    assert_eq!(level(Features::NONE), CpuLevel::Scalar);
    let all = Feature::ALL.into_iter().fold(Features::NONE, Features::with);
    assert_eq!(level(all), Cpu::new(&options).unwrap().level());
    let asked = CpuOptions { level: Some(CpuLevel::Avx2), ..options };
    let refused = Cpu::with_features(&asked, Features::NONE).err().unwrap();
    assert_eq!(refused.to_string(), "this processor has CPU level scalar, not avx2");
}

#[test]
fn what_is_used_of_the_processor_is_told() {
    let processor = |level: CpuLevel, more: &[Feature]| {
        let features = level.required().iter().chain(more).fold(Features::NONE, |set, &one| set.with(one));
        Processor { level, features, threads: 1, distrusted: false }
    };
    let told = |level, more: &[Feature]| processor(level, more).features();
    assert_eq!(told(CpuLevel::Avx512, &[]), "avx512 (F, BW, DQ, VL, VNNI; products of bf16 by those of f32)");
    assert_eq!(told(CpuLevel::Avx512, &[Feature::Avx512Bf16]), "avx512 (F, BW, DQ, VL, VNNI, BF16)");
    // the level was asked for on a processor with AMX
    assert_eq!(told(CpuLevel::Avx512, &[Feature::AmxBf16]), told(CpuLevel::Avx512, &[]));
    let amx = "AVX-512 F, BW, DQ, VL, VNNI";
    let (bf16, tiles) = (&[Feature::Avx512Bf16][..], &[Feature::AmxBf16][..]);
    assert_eq!(
        told(CpuLevel::Amx, &[]),
        format!("amx (AMX-INT8, and {amx}; products of bf16 by those of f32)")
    );
    assert_eq!(told(CpuLevel::Amx, bf16), format!("amx (AMX-INT8, and {amx}, BF16)"));
    assert_eq!(told(CpuLevel::Amx, tiles), format!("amx (AMX-INT8, AMX-BF16, and {amx}, BF16)"));
    let wrong = Processor { distrusted: true, ..processor(CpuLevel::Amx, &[]) };
    assert!(wrong.features().contains("AMX-BF16 left out as it is wrong"), "{}", wrong.features());
    assert!(wrong.warning().is_some_and(|warning| warning.contains("come out wrong")));
    assert_eq!(processor(CpuLevel::Amx, tiles).warning(), None);
}

#[test]
fn every_level_stores_the_bytes_of_the_definition() {
    let mut noise = Noise::new(5);
    for (format, dim) in [KvFormat::F32, KvFormat::Bf16, KvFormat::Q8]
        .into_iter()
        .flat_map(|format| [2, 8, 24, 96].map(|dim| (format, dim)))
    {
        let (mut keys, mut values) = (noise.normal(40 * (dim + 3)), noise.normal(40 * (dim + 3)));
        for x in [&mut keys, &mut values] {
            let row = |token: usize| token * (dim + 3)..token * (dim + 3) + dim;
            // non-finite values at the first and the last place of a row; all zeros; and, for 8-bit formats, tiny
            // values
            (x[row(6).start], x[row(7).end - 1]) = (f32::NAN, f32::NAN);
            (x[row(9).start], x[row(10).end - 1]) = (f32::NEG_INFINITY, f32::INFINITY);
            x[row(12)].fill(0.0);
            for (token, factor) in [(13, 1e-38), (14, 1e-40), (15, 1e-43)] {
                if format == KvFormat::Q8 {
                    x[row(token)].iter_mut().for_each(|value| *value *= factor);
                }
            }
        }
        let rows = KvRows { keys: &keys, values: &values, stride: dim + 3, dim, count: 40 };
        let stored = |variant: Variant| {
            let heads = Heads { query: 4, key_value: 2, dim };
            let mut pool = CpuKvPool::new(KvLayout { layers: 2, heads, format }, 3);
            pool.grow(3).unwrap();
            let kernels =
                if variant.plain_tiles { dispatch::kernels_on_plain_tiles } else { dispatch::kernels };
            let store = kernels(variant.level, variant.features).attention.store_kv;
            // SAFETY: there is one thread, and the processor has the variant's features.
            unsafe { store(&mut pool.writer().head(0, 1, 1), 5, &rows) };
            let head = pool.head(0, 1, 1);
            let scales = [head.key_scales, head.value_scales].map(bytemuck::cast_slice::<f32, u8>);
            let scales = scales.map(<[u8]>::to_vec);
            (head.keys.to_vec(), head.values.to_vec(), scales)
        };
        let expected = stored(Variant::SCALAR);
        for variant in variants().0 {
            assert!(stored(variant) == expected, "{variant} {format:?} {dim}");
        }
    }
}
