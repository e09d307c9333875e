//! Opening a device, once in a process, and locking it to compute on it.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};

use super::{DeviceKind, DeviceSpec};
use crate::{Error, Result};

/// The GPUs that this process has opened. They stay open: Candle keeps buffers for each time that one is opened, and
/// gives them back never.
static OPENED: Mutex<Vec<OpenDevice>> = Mutex::new(Vec::new());

/// A device to compute on, shared by all models that compute there.
#[derive(Clone)]
pub(crate) struct OpenDevice(Arc<Opened>);

struct Opened {
    spec: DeviceSpec,
    candle: Device,
    /// What the GPU calls itself, where it can be asked.
    name: Option<String>,
    /// The process that opened it; a fork has the handles and not what is behind them.
    process: u32,
    lock: Mutex<()>,
}

/// The right to compute on a device, until it is dropped.
///
/// Candle gives each thread a CUDA stream of its own, and all of them the same buffers to work in: what one thread
/// computes, and what it frees, is in no order with what another does. So one thread at a time computes on a GPU, and has
/// the GPU finish before it lets another. A CPU needs none of that.
pub(crate) struct DeviceGuard<'a> {
    gpu: Option<(&'a OpenDevice, MutexGuard<'a, ()>)>,
}

impl Drop for DeviceGuard<'_> {
    fn drop(&mut self) {
        if let Some((device, _)) = &self.gpu {
            device.finish();
        }
    }
}

impl OpenDevice {
    /// The CPU.
    pub(crate) fn cpu() -> Self {
        Self::new(DeviceSpec::Cpu, Device::Cpu, None)
    }

    fn new(spec: DeviceSpec, candle: Device, name: Option<String>) -> Self {
        Self(Arc::new(Opened { spec, candle, name, process: std::process::id(), lock: Mutex::new(()) }))
    }

    /// The device of that name.
    ///
    /// # Errors
    /// [`Device`](crate::ErrorKind::Device) if it is not compiled in, not present, or computes nothing right.
    pub(super) fn named(spec: DeviceSpec) -> Result<Self> {
        if !spec.is_gpu() {
            return Ok(Self::cpu());
        }
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = opened.iter().find(|device| device.spec() == spec) {
            device.refuse_after_fork()?;
            return Ok(device.clone());
        }
        let candle = open_gpu(spec)?;
        let name = gpu_name(&candle);
        check(spec, &candle, name.as_deref())?;
        let device = Self::new(spec, candle, name);
        opened.push(device.clone());
        Ok(device)
    }

    pub(crate) fn spec(&self) -> DeviceSpec {
        self.0.spec
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// The device for Candle. What computes on it or writes to it holds its [`lock`](Self::lock).
    pub(crate) fn candle(&self) -> &Device {
        &self.0.candle
    }

    /// Waits until no other thread computes here.
    pub(crate) fn lock(&self) -> DeviceGuard<'_> {
        let guard = || self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        DeviceGuard { gpu: self.spec().is_gpu().then(|| (self, guard())) }
    }

    /// Waits until the device has done what this thread gave it, which also gives freed memory back to the system. What
    /// failed there is told by the next operation.
    pub(crate) fn finish(&self) {
        if self.spec().is_gpu() {
            drop(self.candle().synchronize());
        }
    }

    /// An error in a process that was forked from one that has computed here, or has opened the GPU.
    ///
    /// # Errors
    /// [`Inference`](crate::ErrorKind::Inference).
    pub(crate) fn refuse_after_fork(&self) -> Result<()> {
        if !self.spec().is_gpu() {
            return refuse_after_fork();
        }
        if self.0.process == std::process::id() {
            return Ok(());
        }
        Err(Error::inference(format!(
            "this process was forked from one that had opened the device \"{}\", which a fork cannot use; start processes \
             with multiprocessing's \"spawn\" or \"forkserver\", or set device to \"cpu\"",
            self.spec()
        )))
    }
}

/// The process that Candle's threads were started in; 0 before.
static COMPUTING_PROCESS: AtomicU32 = AtomicU32::new(0);

/// An error in a process that was forked after Candle had computed: a fork has the memory of the threads that
/// compute and not the threads, and would wait for them without end. The kernels' threads are started anew there.
fn refuse_after_fork() -> Result<()> {
    let process = std::process::id();
    match COMPUTING_PROCESS.compare_exchange(0, process, Ordering::Relaxed, Ordering::Relaxed) {
        Err(other) if other != process => Err(Error::inference(
            "this process was forked from one that had computed with Candle already, whose threads are not copied; fork \
             before the first prompt, start processes with multiprocessing's \"spawn\" or \"forkserver\", or set \
             executor to \"kernels\"",
        )),
        _ => Ok(()),
    }
}

/// Opens a GPU, or says that it is not compiled in, or why it is not to be had.
fn open_gpu(spec: DeviceSpec) -> Result<Device> {
    let Some(DeviceKind { name, feature, is_compiled_in, open, .. }) = spec.kind() else { return Ok(Device::Cpu) };
    if !is_compiled_in() {
        let remedy = feature.map(|feature| format!("build it with the feature {feature:?}, or "));
        return Err(Error::device(format!(
            "device \"{spec}\": this build has no {name} support; {}set device to \"cpu\"",
            remedy.unwrap_or_default()
        )));
    }
    // Candle takes the Metal device with the ordinal out of a list without looking how long that is.
    match catch_unwind(|| open(spec.ordinal())) {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => {
            let reason = error.to_string();
            let reason = reason.lines().next().unwrap_or_default();
            Err(Error::device(format!(
                "device \"{spec}\" cannot be opened: {reason}; set device to \"auto\" or \"cpu\""
            ))
            .with_source(error))
        }
        Err(_) => Err(Error::device(format!(
            "device \"{spec}\" cannot be opened: it does not exist; set device to \"auto\" or \"cpu\""
        ))),
    }
}

/// What a GPU is, for people.
#[cfg(feature = "cuda")]
fn gpu_name(device: &Device) -> Option<String> {
    let stream = device.as_cuda_device().ok()?.cuda_stream();
    let context = stream.context();
    let (major, minor) = context.compute_capability().ok()?;
    Some(format!("{}, compute capability {major}.{minor}", context.name().ok()?))
}

#[cfg(not(feature = "cuda"))]
fn gpu_name(_: &Device) -> Option<String> {
    None
}

/// Fails if Candle's products with quantized weights are wrong on a GPU.
///
/// Candle launches these kernels without looking whether they were launched. They are compiled for one generation of GPUs,
/// and on another they leave in the result what was in memory before.
fn check(spec: DeviceSpec, device: &Device, name: Option<&str>) -> Result<()> {
    let unusable = |fault: &str| {
        let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
        let advice = spec.kind().map_or("", |kind| kind.advice);
        Error::device(format!("device \"{spec}\"{name} cannot be used: {fault}{advice}, or set device to \"cpu\""))
    };
    // One row takes another kernel than many.
    for rows in [1, 16] {
        let expected = product(&Device::Cpu, rows)?;
        match product(device, rows) {
            Ok(found) if is_close(&found, &expected) => {}
            Ok(_) => return Err(unusable("a product with quantized weights came out wrong")),
            Err(error) => return Err(unusable(&error.to_string())),
        }
    }
    Ok(())
}

/// A product of `rows` rows with weights in Q8_0.
fn product(device: &Device, rows: usize) -> Result<Vec<f32>> {
    const COLUMNS: usize = 64;
    const OUT: usize = 32;
    let wave = |count: usize, step: f32| -> Vec<f32> { (0..count).map(|i| (i as f32 * step).sin()).collect() };
    let weight = Tensor::from_vec(wave(OUT * COLUMNS, 0.37), (OUT, COLUMNS), &Device::Cpu)?;
    let weight = QTensor::quantize(&weight, GgmlDType::Q8_0)?;
    let storage = QStorage::from_data(weight.data()?, device, GgmlDType::Q8_0)?;
    let weight = QMatMul::from_qtensor(QTensor::new(storage, (OUT, COLUMNS))?)?;
    let x = Tensor::from_vec(wave(rows * COLUMNS, 0.11), (1, rows, COLUMNS), device)?;
    Ok(weight.forward(&x)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
}

/// Whether two results differ by no more than rounding activations to 8 bits does. NaN is close to nothing.
fn is_close(found: &[f32], expected: &[f32]) -> bool {
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() <= 0.02 * largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_leaves_what_was_in_memory_is_found_out() {
        let expected = product(&Device::Cpu, 16).unwrap();
        assert!(is_close(&expected, &expected));
        let nearly: Vec<f32> = expected.iter().map(|value| value * 1.01).collect();
        assert!(is_close(&nearly, &expected));
        for wrong in [vec![0.0; expected.len()], vec![f32::NAN; expected.len()], Vec::new()] {
            assert!(!is_close(&wrong, &expected));
        }
        let mut one_wrong = expected.clone();
        one_wrong[3] += 1.0;
        assert!(!is_close(&one_wrong, &expected));
    }

    #[test]
    fn the_cpu_passes_the_check_that_a_gpu_must_pass() {
        check(DeviceSpec::Cpu, &Device::Cpu, None).unwrap();
    }

    #[test]
    fn a_cpu_is_not_locked() {
        let device = OpenDevice::cpu();
        let (first, second) = (device.lock(), device.lock());
        assert!(first.gpu.is_none() && second.gpu.is_none());
    }
}
