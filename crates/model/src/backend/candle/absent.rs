//! The device types of a program without candle. There is no device, so these types have no values.

use hyperrag_core::{
    BlockError, Chunk, KvBlock, KvShape, LanguageModel, LayerSource, ModelError, Pair,
};
use hyperrag_kernels::dtype::ComputeDtype;

use crate::arch::config::Config;
use crate::backend::candle::choice::{DeviceChoice, DeviceInfo, DeviceSettings, open};
use crate::backend::candle::device::Device;
use crate::error::LoadError;
use crate::format::model_file::ModelFile;

/// A model on a device.
#[derive(Clone, Copy)]
pub enum DeviceModel {}

/// A block in a device's memory.
#[derive(Clone, Copy)]
pub enum DeviceBlock {}

impl DeviceModel {
    /// Always fails.
    ///
    /// # Errors
    /// [`LoadError::NoDecoder`], or [`LoadError::Device`] for a GPU.
    pub fn load(
        _: &mut ModelFile,
        choice: DeviceChoice,
        settings: DeviceSettings,
    ) -> Result<(Self, DeviceInfo), LoadError> {
        Self::none(choice, settings)
    }

    pub(crate) fn load_on(
        _: &mut ModelFile,
        device: &Device,
        _: DeviceSettings,
    ) -> Result<Self, LoadError> {
        match *device {}
    }

    /// Always fails.
    ///
    /// # Errors
    /// [`LoadError::NoDecoder`], or [`LoadError::Device`] for a GPU.
    pub fn random(
        _: Config,
        choice: DeviceChoice,
        settings: DeviceSettings,
    ) -> Result<(Self, DeviceInfo), LoadError> {
        Self::none(choice, settings)
    }

    fn none(
        choice: DeviceChoice,
        settings: DeviceSettings,
    ) -> Result<(Self, DeviceInfo), LoadError> {
        match open(choice, settings.warn)? {
            Some((device, _)) => match device {},
            None => Err(LoadError::NoDecoder { device: choice.to_string() }),
        }
    }

    /// Returns the sizes of the model.
    #[must_use]
    pub fn config(&self) -> &Config {
        match *self {}
    }

    /// Returns the type of weights and products.
    #[must_use]
    pub fn dtype(&self) -> ComputeDtype {
        match *self {}
    }

    /// Returns the rate of products of `size` by `size` matrices, in floating-point operations a
    /// second.
    ///
    /// # Errors
    /// None.
    pub fn product_flops(&self, _: usize) -> Result<f64, ModelError> {
        match *self {}
    }
}

impl LanguageModel for DeviceModel {
    type Resident = DeviceBlock;

    fn kv_shape(&self) -> &KvShape {
        match *self {}
    }

    fn context_tokens(&self) -> usize {
        match *self {}
    }

    fn prefill(&self, _: &[Chunk]) -> Result<Vec<KvBlock>, ModelError> {
        match *self {}
    }

    fn upload(&self, _: KvBlock) -> Result<DeviceBlock, ModelError> {
        match *self {}
    }

    fn score_resident(&self, _: &[Pair<'_, DeviceBlock>]) -> Result<Vec<f32>, ModelError> {
        match *self {}
    }

    fn score_streamed(
        &self,
        _: &[Pair<'_, dyn LayerSource + '_>],
    ) -> Result<Vec<Result<f32, BlockError>>, ModelError> {
        match *self {}
    }
}
