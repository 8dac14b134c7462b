//! The agent's `/etc/passwd`: the lines of its image, and one for the agent. Without one, ssh says
//! "No user exists for uid 1000", and HOME is `/`.

use std::fmt::Write;

use crate::who::Ids;

/// Home of an agent to whom the image gives none: a file system in memory.
pub(crate) const HOME: &str = "/home/agent";

/// The file: the image's lines, with one for `agent` that has a home.
pub(crate) fn merge(image: &str, (uid, gid): Ids) -> String {
    let mut out = String::new();
    let mut known = false;
    for line in image.lines().filter(|line| !line.trim().is_empty()) {
        match Entry::parse(line) {
            Some(entry) if entry.uid == uid && !known => {
                known = true;
                out.push_str(&entry.at_home(line));
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    if !known {
        let taken = |name: &str| image.lines().any(|line| line.split(':').next() == Some(name));
        let name = if taken("agent") { "bottle" } else { "agent" };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name}:x:{uid}:{gid}:{name}:{HOME}:/bin/sh");
    }
    out
}

/// A line of passwd(5).
struct Entry<'a> {
    uid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':').skip(2);
        let uid = fields.next()?.parse().ok()?;
        Some(Self { uid, home: fields.nth(2)? })
    }

    /// The line, with our home where its own is none: daemons have `/`, `/nonexistent`, `/usr/sbin`.
    fn at_home(&self, line: &str) -> String {
        let lives = self.home.starts_with("/home/")
            || self.home.starts_with("/root")
            || self.home.starts_with("/Users/");
        if lives {
            return line.to_owned();
        }
        let mut fields: Vec<&str> = line.split(':').collect();
        fields[5] = HOME;
        if let Some(shell) =
            fields.get_mut(6).filter(|s| s.ends_with("nologin") || s.ends_with("false"))
        {
            *shell = "/bin/sh";
        }
        fields.join(":")
    }
}

/// The first file of a tar stream, as `docker cp CONTAINER:/etc/passwd -` prints it: a header of
/// 512 bytes, its name first, its size in octal at 124, its type at 156; then the bytes.
pub(crate) fn untar(tar: &[u8]) -> Option<String> {
    let header = tar.get(..512)?;
    if !matches!(header[156], b'0' | 0) {
        return None;
    }
    let size = std::str::from_utf8(&header[124..136]).ok()?;
    let size = usize::from_str_radix(size.trim_matches(['\0', ' ']), 8).ok()?;
    let bytes = tar.get(512..512usize.checked_add(size)?)?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "root:x:0:0:root:/root:/bin/bash\n\
        nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
        node:x:1000:1000::/home/node:/bin/bash";

    #[test]
    fn uid_of_the_image_keeps_its_home() {
        assert_eq!(merge(IMAGE, (1000, 1000)), format!("{IMAGE}\n"));
        assert_eq!(merge(IMAGE, (0, 0)), format!("{IMAGE}\n"));
    }

    #[test]
    fn uid_without_a_line_gets_one() {
        assert_eq!(
            merge(IMAGE, (65533, 7)),
            format!("{IMAGE}\nagent:x:65533:7:agent:/home/agent:/bin/sh\n")
        );
        assert_eq!(merge("", (5, 5)), "agent:x:5:5:agent:/home/agent:/bin/sh\n");
        let taken = "agent:x:3:3::/home/agent:/bin/sh";
        assert!(merge(taken, (5, 5)).ends_with("\nbottle:x:5:5:bottle:/home/agent:/bin/sh\n"));
    }

    #[test]
    fn uid_without_a_home_gets_one() {
        assert!(
            merge(IMAGE, (65534, 65534))
                .contains("\nnobody:x:65534:65534:nobody:/home/agent:/bin/sh\n")
        );
    }

    #[test]
    fn broken_lines_of_an_image_stay_as_they_are() {
        assert!(merge("+::::::\nx:y\n", (1, 1)).starts_with("+::::::\nx:y\nagent:"));
    }

    #[test]
    fn tar_of_one_file_is_read() {
        let mut tar = vec![0; 512];
        tar[124..136].copy_from_slice(b"00000000003\0");
        tar[156] = b'0';
        tar.extend(b"a:x");
        assert_eq!(untar(&tar).unwrap(), "a:x");
        assert_eq!(untar(&tar[..514]), None);
        tar[156] = b'5';
        assert_eq!(untar(&tar), None);
        assert_eq!(untar(b""), None);
    }
}
