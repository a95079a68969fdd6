//! Content of a folder that was published to.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use m3u8_rs::Playlist;

/// Folder of the part records.
const RECORDS: &str = "parts/";

/// File that a compare-and-swap of a local file leaves beside it. A lock file that is removed could be
/// another process's next one.
const LOCK: &str = ".spool-lock";

/// Returns every file below a folder, by its relative path.
///
/// # Panics
/// If the folder cannot be read.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inside) = folders.pop() {
        // A folder that does not exist has no files.
        for entry in std::fs::read_dir(inside).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with(LOCK) {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Returns every file except the part records, which contain times and hosts.
pub fn media(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    files(folder).into_iter().filter(|(name, _)| !name.starts_with(RECORDS)).collect()
}

/// Returns the parsed part records, by their path.
///
/// # Panics
/// If a record is no valid JSON.
pub fn records(folder: &Path) -> BTreeMap<String, serde_json::Value> {
    let records = files(&folder.join("parts")).into_iter().filter(|(name, _)| name.ends_with(".json"));
    records
        .map(|(name, bytes)| (format!("{RECORDS}{name}"), serde_json::from_slice(&bytes).unwrap()))
        .collect()
}

/// Returns all files that a player of `master.m3u8` reaches, including itself.
///
/// # Panics
/// If a playlist cannot be read, or a file that it names is missing.
pub fn reachable(files: &BTreeMap<String, Vec<u8>>) -> BTreeSet<String> {
    let file = |name: &str| {
        files.get(name).unwrap_or_else(|| panic!("{name} is named by a playlist, and does not exist"))
    };
    let mut reached = BTreeSet::from(["master.m3u8".to_owned()]);
    let Ok(Playlist::MasterPlaylist(master)) = m3u8_rs::parse_playlist_res(file("master.m3u8")) else {
        panic!("master.m3u8 is no multivariant playlist");
    };
    let sounds = master.alternatives.iter().filter_map(|media| media.uri.clone());
    for playlist in master.variants.iter().map(|variant| variant.uri.clone()).chain(sounds) {
        let Ok(Playlist::MediaPlaylist(media)) = m3u8_rs::parse_playlist_res(file(&playlist)) else {
            panic!("{playlist} is no media playlist");
        };
        let inside = |uri: &str| {
            playlist.rsplit_once('/').map_or(uri.to_owned(), |(folder, _)| format!("{folder}/{uri}"))
        };
        let maps = media.segments.iter().filter_map(|segment| Some(segment.map.as_ref()?.uri.as_str()));
        for uri in media.segments.iter().map(|segment| segment.uri.as_str()).chain(maps) {
            file(&inside(uri));
            reached.insert(inside(uri));
        }
        reached.insert(playlist);
    }
    reached
}

/// Sets the time of every file of a folder, at any depth, back.
///
/// # Panics
/// If the time of a file cannot be set.
pub fn age(folder: &Path, by: std::time::Duration) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            age(&entry.path(), by);
        } else {
            let then = std::time::SystemTime::now() - by;
            std::fs::File::options().append(true).open(entry.path()).unwrap().set_modified(then).unwrap();
        }
    }
}
