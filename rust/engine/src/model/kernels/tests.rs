//! What does not fit together is an internal error: no key stays as it was, and no row is zero.

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use candle_phi_kernels::{TensorType, Threads, Weight};

use super::*;
use crate::ErrorKind;
use crate::machine::Compute;

const WIDTH: usize = 8;

/// Begins a pass of `seq` positions of the tiny model.
fn in_pass<T>(
    seq: usize,
    cancel: &CancelToken,
    test: impl FnOnce(&KernelExecutor, &mut KernelPass<'_>) -> T,
) -> T {
    let config = PhiConfig::tiny();
    let executor = KernelExecutor { forms: ActivationForms { quantized: true, float: true } };
    let mut cache = executor.new_cache(&config, 1000, KvDtype::F16).unwrap();
    let positions = cache.new_positions(seq).unwrap();
    let rope = RopeTable { cos: vec![1.0; 2 * seq], sin: vec![0.0; 2 * seq], half: 2, interleaved: false };
    let compute = Compute { threads: Threads::new(2), kernels: Kernels::best() };
    let start = Start { config: &config, cache: &mut cache, positions, rope, compute: &compute, cancel };
    test(&executor, &mut executor.begin(start).unwrap())
}

fn products(rows: usize, columns: usize) -> Products {
    let kernels = Kernels::best();
    let bytes = 1.0_f32.to_le_bytes().repeat(columns * 4);
    let weight = Weight::new(TensorType::F32, &bytes, columns, 4).unwrap();
    let mut x = Activations::new(rows, 4, ActivationForms::read_by(TensorType::F32));
    (0..rows).for_each(|row| x.set_row(kernels, row, &[0.25; 4]));
    let prepared = Prepared::new(kernels, TensorType::F32, &x);
    kernels.multiply(&weight, 0..columns, &[(&x, &prepared)], &BufferPool::default())
}

/// An output of ones in one part.
fn output(rows: usize, width: usize) -> Output {
    Output { parts: Parts::from_iter([products(rows, width)]), rows, width, part_width: width }
}

fn hidden(rows: usize) -> Hidden {
    Hidden { parts: Parts::from_iter([vec![0.5; rows * WIDTH]]), rows, width: WIDTH }
}

#[track_caller]
fn internal<T>(result: Result<T>) {
    let error = result.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Inference);
    assert!(error.to_string().starts_with("internal error: "), "{error}");
}

#[test]
fn rows_and_columns_that_an_output_does_not_have_are_an_error() {
    let whole = output(3, 40);
    let mut out = vec![0.0; 3 * 40];
    whole.copy(&(0..3), &(0..40), &mut out).unwrap();
    assert_eq!(out, [1.0; 120]);
    whole.add_to(&(1..3), &mut out[..80]).unwrap();
    assert_eq!(out[..80], [2.0; 80]);
    internal(whole.copy(&(0..4), &(0..40), &mut [0.0; 160]));
    internal(whole.copy(&(0..3), &(0..41), &mut [0.0; 123]));
    internal(whole.copy(&(0..3), &(8..40), &mut [0.0; 95]));
    internal(whole.add_to(&(0..3), &mut [0.0; 119]));
    internal(whole.add_to(&(2..4), &mut [0.0; 80]));
    for parts in [Parts::from_iter([]), Parts::from_iter([Products::none(&BufferPool::default())])] {
        internal(Output { parts, ..output(3, 40) }.copy(&(0..1), &(0..1), &mut [0.0]));
    }
}

#[test]
fn embeddings_and_norms_of_another_length_are_an_error() {
    in_pass(3, &CancelToken::new(), |executor, pass| {
        internal(executor.hidden(pass, vec![0.0; 3 * WIDTH - 1]));
        let norm = |len| Arc::new(NormWeights::Rms { weight: vec![1.0; len], epsilon: 1e-5 });
        executor.norm(pass, &hidden(3), &norm(WIDTH)).unwrap();
        internal(executor.norm(pass, &hidden(3), &norm(WIDTH - 1)));
    });
    in_pass(3, &CancelToken::new(), |executor, pass| {
        let norm = Arc::new(NormWeights::Rms { weight: vec![1.0; WIDTH], epsilon: 1e-5 });
        internal(executor.norm(pass, &Hidden { rows: 4, ..hidden(3) }, &norm));
    });
}

#[test]
fn a_residual_stream_that_lacks_rows_is_an_error() {
    in_pass(3, &CancelToken::new(), |executor, pass| {
        let sum = executor.add(pass, hidden(3), &[output(3, WIDTH), output(3, WIDTH)]).unwrap();
        assert_eq!(sum.parts.iter().flatten().copied().collect::<Vec<_>>(), [2.5; 3 * WIDTH]);
        assert_eq!(executor.last(&sum).unwrap().parts.get(0).unwrap(), &[2.5; WIDTH]);
        internal(executor.last(&Hidden { parts: Parts::from_iter([]), ..hidden(3) }));
        internal(executor.add(pass, Hidden { rows: 3, ..hidden(2) }, &[output(3, WIDTH)]));
    });
    in_pass(3, &CancelToken::new(), |executor, pass| {
        internal(executor.add(pass, hidden(3), &[output(2, WIDTH)]));
    });
}

#[test]
fn projections_that_lack_a_head_are_an_error_and_leave_the_cache_as_it_was() {
    // Queries, keys and values of two heads of four.
    let whole = 3 * 2 * 4;
    for seq in [1, 40] {
        for width in [whole, whole - 4, 8] {
            in_pass(seq, &CancelToken::new(), |executor, pass| {
                let attended = executor.attend(pass, 0, Projections::Fused(output(seq, width)));
                if width == whole {
                    assert_eq!(attended.unwrap().rows, seq);
                } else {
                    internal(attended);
                }
                assert_eq!(pass.cache.len(), 0);
            });
        }
    }
}

#[test]
fn an_input_that_lacks_a_part_is_an_error() {
    let part = || Activations::new(1, WIDTH, ActivationForms { quantized: true, float: false });
    let prepare = |part: &Activations| Prepared::new(Kernels::best(), TensorType::Q8_0, part);
    let input = Input { parts: Parts::from_iter([part(), part()]), rows: 2 };
    let all: Parts<_> = input.parts.iter().map(prepare).collect();
    assert_eq!(both(&input, &all).unwrap().len(), 2);
    internal(both(&input, &input.parts.iter().take(1).map(prepare).collect()));
}

#[test]
fn weight_rows_that_there_are_none_of_are_an_error() {
    let tensor = |values: usize, shape: &[usize]| {
        let tensor = Tensor::from_vec(vec![1.0_f32; values], shape, &Device::Cpu).unwrap();
        QTensor::quantize(&tensor, GgmlDType::F32).unwrap()
    };
    let (weight, bias) = (tensor(32, &[4, WIDTH]), tensor(4, &[4]));
    let mut file = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut file, &[], &[("w.weight", &weight), ("w.bias", &bias)]).unwrap();
    let gguf = Arc::new(Gguf::from_bytes(std::path::Path::new("w"), file.get_ref()).unwrap());
    let layer = Linear::load(&gguf, "w", 4, WIDTH).unwrap();
    let kernels = Kernels::best();
    let mut x = Activations::new(1, WIDTH, ActivationForms::read_by(TensorType::F32));
    x.set_row(kernels, 0, &[1.0; WIDTH]);
    let prepared = Prepared::new(kernels, TensorType::F32, &x);
    let multiply = |rows| layer.multiply(kernels, rows, &[(&x, &prepared)], &BufferPool::default());
    assert_eq!(multiply(2..4).unwrap().values()[..2], [9.0; 2]);
    internal(multiply(2..5));
}

#[test]
fn the_first_error_of_a_job_is_its_error() {
    in_pass(1, &CancelToken::new(), |_, pass| {
        let part = |index| if index == 5 { Err(Error::internal("the fifth")) } else { Ok(index) };
        internal(map(&pass.threads, &pass.errors, 8, part, || 0));
        // Nothing of the pass is used after it.
        internal(map(&pass.threads, &pass.errors, 2, Ok, || 0));
    });
    in_pass(1, &CancelToken::new(), |_, pass| {
        let squares = map(&pass.threads, &pass.errors, 8, |index| Ok(index * index), || 0).unwrap();
        assert_eq!(squares.iter().sum::<usize>(), 140);
    });
}

#[test]
fn a_cancelled_pass_is_cancelled_even_if_the_token_is_reset() {
    let cancel = CancelToken::new();
    in_pass(3, &cancel, |_, pass| {
        let token = cancel.clone();
        let part = move |columns: Range<usize>, _: &BufferPool| {
            token.cancel();
            Ok(products(3, columns.len()))
        };
        // The first part cancels all later ones.
        let cancelled = pass.output(3, 640, part).err();
        cancel.reset();
        assert_eq!(cancelled.unwrap().kind(), ErrorKind::Cancelled);
        assert_eq!(pass.errors.check().unwrap_err().kind(), ErrorKind::Cancelled);
    });
}
