//! Who may open what: a rule for the user goes before one for everybody, a refusal before a grant of the same kind, and
//! without any rule the answer is no.

use serde::{Deserialize, Serialize};

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum RuleType {
    Accept,
    Deny,
}

/// Of whom it says that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum SubjectType {
    User,
    /// The one group that there is: every user.
    Group,
}

/// A rule about one application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    pub id: i64,
    pub application_id: String,
    pub rule_type: RuleType,
    pub subject_type: SubjectType,
    /// A user's id; 0 for the group.
    pub subject_id: i64,
    pub created_at: String,
}

/// Whether the rules about an application let a user in.
pub(crate) fn granted<'a>(rules: &(impl Iterator<Item = &'a Rule> + Clone), user: i64) -> bool {
    let say = |subject: SubjectType| {
        let mut said = rules.clone().filter(move |rule| {
            rule.subject_type == subject && (subject == SubjectType::Group || rule.subject_id == user)
        });
        said.clone().next().map(|_| said.all(|rule| rule.rule_type == RuleType::Accept))
    };
    say(SubjectType::User).or_else(|| say(SubjectType::Group)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use RuleType::{Accept, Deny};
    use SubjectType::{Group, User};

    use super::*;

    fn may(rules: &[(RuleType, SubjectType, i64)]) -> bool {
        let rules: Vec<Rule> = rules
            .iter()
            .map(|&(rule_type, subject_type, subject_id)| Rule {
                id: 0,
                application_id: "a".into(),
                rule_type,
                subject_type,
                subject_id,
                created_at: String::new(),
            })
            .collect();
        granted(&rules.iter(), 7)
    }

    #[test]
    fn the_user_goes_before_the_group_a_refusal_before_a_grant_and_nothing_is_no() {
        assert!(!may(&[]));
        assert!(!may(&[(Accept, User, 8)]), "somebody else's");
        assert!(may(&[(Accept, User, 7)]));
        assert!(may(&[(Accept, Group, 0)]));
        assert!(!may(&[(Accept, Group, 0), (Deny, User, 7)]));
        assert!(may(&[(Deny, Group, 0), (Accept, User, 7)]));
        assert!(!may(&[(Accept, User, 7), (Deny, User, 7)]));
        assert!(!may(&[(Deny, Group, 0), (Accept, Group, 0)]));
    }
}
