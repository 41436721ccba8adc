//! Which line installs PostgreSQL on this machine.

use std::fs;

use crate::file::own_uid;

/// The line to type for the distribution in /etc/os-release; `major` when only that one helps.
pub(super) fn install_hint(major: Option<u16>) -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    hint_for(&text, own_uid() == 0, major)
}

/// The same for the client programs alone.
#[cfg(feature = "backup")]
pub(super) fn client_install_hint(major: u16) -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let sudo = if own_uid() == 0 { "" } else { "sudo " };
    match is_debian(&text) {
        true => format!(
            "`{sudo}apt-get install postgresql-client-{major}` (from apt.postgresql.org where the distribution has another)"
        ),
        false => format!(
            "install the client programs of PostgreSQL {major} with your package manager, or point SHAREDDB_PG_BIN at their \
             directory"
        ),
    }
}

fn hint_for(os_release: &str, root: bool, major: Option<u16>) -> String {
    let sudo = if root { "" } else { "sudo " };
    match (is_debian(os_release), major) {
        (true, None) => format!("`{sudo}apt-get install postgresql`"),
        (true, Some(major)) => format!(
            "`{sudo}apt-get install postgresql-{major}` (from apt.postgresql.org where the distribution has another)"
        ),
        (false, None) => "install the PostgreSQL server and its client programs, 14 to 18, with your package \
                          manager, or point SHAREDDB_PG_BIN at their directory"
            .into(),
        (false, Some(major)) => format!(
            "install the PostgreSQL {major} server and its client programs with your package manager, or point \
             SHAREDDB_PG_BIN at their directory"
        ),
    }
}

/// Whether the distribution installs with apt: Debian, Ubuntu and what descends from them.
fn is_debian(os_release: &str) -> bool {
    os_release.lines().any(|line| {
        let value = line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE="));
        let words = value.unwrap_or_default().trim().trim_matches(['"', '\'']);
        words.split_whitespace().any(|word| matches!(word, "debian" | "ubuntu"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_distribution_and_user() {
        let debian = "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n";
        let mint = "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n";
        let fedora = "NAME=Fedora\nID=fedora\nHOME_URL=\"https://debian\"\n";
        assert_eq!(hint_for(debian, true, None), "`apt-get install postgresql`");
        assert_eq!(hint_for(mint, false, None), "`sudo apt-get install postgresql`");
        assert!(hint_for(debian, true, Some(16)).contains("postgresql-16"));
        assert!(hint_for(fedora, true, None).contains("package manager"));
        assert!(hint_for("", false, Some(17)).contains("PostgreSQL 17"));
    }
}
