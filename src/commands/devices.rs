//! `devices`: says where models can compute.

use anyhow::Result;
use hyperrag_model::{DeviceChoice, DeviceInfo};
use serde_json::json;

use crate::exit::Status;
use crate::output::table::fields;
use crate::{hint, report};

/// Says which devices there are.
pub(crate) fn devices(json: bool) -> Result<Status> {
    let mut found = vec![DeviceInfo::of(DeviceChoice::Cpu)?];
    let mut refusal = None;
    for number in 0.. {
        match DeviceInfo::of(DeviceChoice::Cuda(number)) {
            Ok(info) => found.push(info),
            Err(error) => {
                refusal = (number == 0).then(|| hint::sentence(&error.into()));
                break;
            }
        }
    }
    let auto = DeviceInfo::of(DeviceChoice::Auto)?.device;
    if json {
        let value = json!({"devices": found, "auto": auto, "no_gpu": refusal});
        report::print_data(&value.to_string())?;
        return Ok(Status::Done);
    }
    let lines = found.iter().map(|info| {
        let DeviceInfo { device, name, memory_bytes, driver } = info;
        let memory = memory_bytes.map(|bytes| format!("{} of memory", report::bytes(bytes)));
        let driver = driver.as_ref().map(|version| format!("driver for CUDA {version}"));
        let about: Vec<String> = name.clone().into_iter().chain(memory).chain(driver).collect();
        (device.clone(), about.join(", "))
    });
    let auto = ("--device auto".to_owned(), auto);
    let refusal = refusal.map(|refusal| ("no GPU".to_owned(), refusal));
    let lines: Vec<_> = lines.chain([auto]).chain(refusal).collect();
    report::print(&fields(&lines))?;
    Ok(Status::Done)
}
