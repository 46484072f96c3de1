//! Answers of jobs as files hold them: a header and rows, in part files or in one file.

use std::fs;
use std::path::Path;

/// The rows without headers of a file or of a folder's parts, sorted. Names that begin with a dot
/// are no result.
///
/// # Panics
///
/// Where the files can't be read.
pub fn rows(path: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("the job wrote the folder") {
            let entry = entry.expect("nobody removes it");
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                rows.append(&mut self::rows(&entry.path()));
            }
        }
    } else {
        let text = fs::read_to_string(path);
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        rows.extend(text.lines().skip(1).map(str::to_owned));
    }
    rows.sort();
    rows
}
