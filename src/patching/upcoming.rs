//! Surveys a host as it will be: what is installed now, with package files in place of the packages that they will replace.

use super::survey::{MAX_FILE, Survey};
use super::text::strip;
use crate::host::dpkg::Package;
use crate::host::{Deb, DebError};

/// Gives `survey` as it will be once `debs` are installed. A file that another one has displaced (dpkg-divert) stays what it
/// is, because the new package's will not be the one in use either.
///
/// # Errors
/// [`DebError`] where a file of a package cannot be read.
pub fn with(mut survey: Survey, debs: &[Deb]) -> Result<Survey, DebError> {
    for deb in debs {
        for (path, view) in &mut survey.files {
            if view.package.as_deref() != Some(deb.package.as_str()) || view.diverted.is_some() {
                continue;
            }
            view.content = deb.read(path, MAX_FILE)?;
            view.listed = view.content.is_some();
            view.stripped = view.content.as_deref().map(strip);
            view.origin = view.content.as_deref().map(|content| deb.origin(path, content)).transpose()?;
        }
        let package = Package {
            name: deb.package.clone(),
            version: deb.version.clone(),
            architecture: deb.architecture.clone(),
            state: "installed".to_owned(),
        };
        survey.packages.insert(deb.package.clone(), package);
    }
    Ok(survey)
}
