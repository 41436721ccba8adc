//! Whether a workload asks Stakater's Reloader to restart it when a Secret changes, as its annotations say.

use std::collections::BTreeMap;

/// Annotations of an object, as its metadata have them.
pub(super) type Annotations = Option<BTreeMap<String, String>>;

/// Which Secrets by name, with commas between.
const NAMED: &str = "secret.reloader.stakater.com/reload";
/// All that it takes.
const ALL: [&str; 2] = ["reloader.stakater.com/auto", "secret.reloader.stakater.com/auto"];
/// Those that say so themselves, by [`SOUGHT`].
const SEARCHES: &str = "reloader.stakater.com/search";
const SOUGHT: &str = "reloader.stakater.com/match";
/// Which Secrets it is not restarted for.
const EXCEPT: &str = "secrets.exclude.reloader.stakater.com/reload";
/// By a Secret: nobody is restarted for it.
const IGNORED: &str = "reloader.stakater.com/ignore";

/// Whether it is restarted for this Secret, which it takes. What the template says counts where the workload itself says
/// nothing. Names may be patterns; those are not followed, so that one too many is told to be restarted, and none too few.
pub(super) fn reloads(workload: &Annotations, template: &Annotations, secret: &str, of_secret: &Annotations) -> bool {
    let says = |annotations: &Annotations, key: &str| value(annotations, key).is_some();
    let own = ALL.into_iter().chain([NAMED, SEARCHES]).any(|key| says(workload, key));
    let asked = if own { workload } else { template };
    if value(of_secret, IGNORED) == Some("true") || lists(value(workload, EXCEPT), secret) {
        return false;
    }
    let sought = value(asked, SEARCHES) == Some("true") && value(of_secret, SOUGHT) == Some("true");
    sought || lists(value(asked, NAMED), secret) || ALL.into_iter().any(|key| value(asked, key).is_some_and(is_true))
}

fn value<'a>(annotations: &'a Annotations, key: &str) -> Option<&'a str> {
    annotations.as_ref()?.get(key).map(String::as_str)
}

fn lists(names: Option<&str>, secret: &str) -> bool {
    names.is_some_and(|names| names.split(',').any(|name| name.trim() == secret))
}

/// As Go reads it.
fn is_true(text: &str) -> bool {
    ["1", "t", "T", "true", "True", "TRUE"].contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "shop-db-secret";

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        Some(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    fn own(key: &str, value: &str) -> bool {
        reloads(&annotations(&[(key, value)]), &None, SECRET, &None)
    }

    #[test]
    fn it_is_asked_for_all_secrets_or_for_those_that_are_named() {
        assert!(own("reloader.stakater.com/auto", "true") && own("secret.reloader.stakater.com/auto", "1"));
        assert!(!own("reloader.stakater.com/auto", "false") && !own("configmap.reloader.stakater.com/auto", "true"));
        assert!(own(NAMED, SECRET) && own(NAMED, "other, shop-db-secret"));
        assert!(!own(NAMED, "other") && !own(NAMED, "shop-db-secret-2") && !own(NAMED, ""));
        assert!(!reloads(&None, &None, SECRET, &None));
    }

    #[test]
    fn a_search_finds_the_secret_that_says_so() {
        let searches = annotations(&[(SEARCHES, "true")]);
        assert!(!reloads(&searches, &None, SECRET, &None));
        assert!(reloads(&searches, &None, SECRET, &annotations(&[(SOUGHT, "true")])));
        assert!(!reloads(&None, &None, SECRET, &annotations(&[(SOUGHT, "true")])));
    }

    #[test]
    fn the_template_counts_where_the_workload_says_nothing() {
        let (yes, no) = (annotations(&[(ALL[0], "true")]), annotations(&[(ALL[0], "false")]));
        assert!(reloads(&None, &yes, SECRET, &None));
        assert!(reloads(&annotations(&[("team", "blue")]), &yes, SECRET, &None));
        assert!(!reloads(&no, &yes, SECRET, &None));
        assert!(reloads(&yes, &no, SECRET, &None));
    }

    #[test]
    fn a_secret_can_be_left_out() {
        let all = annotations(&[(ALL[0], "true"), (EXCEPT, "other")]);
        assert!(reloads(&all, &None, SECRET, &None) && !reloads(&all, &None, "other", &None));
        assert!(!reloads(&all, &None, SECRET, &annotations(&[(IGNORED, "true")])));
        assert!(reloads(&all, &None, SECRET, &annotations(&[(IGNORED, "false")])));
    }
}
