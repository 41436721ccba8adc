//! Which type of the server's a Rust value stands for. Pure.
//!
//! A statement without a name is sent together with its parameters, so nobody can ask the server first.

use bytes::BytesMut;
use tokio_postgres::types::{ToSql, Type};

/// The first that a value fits is its type: where several do, that is the one which loses nothing.
const CANDIDATES: [Type; 44] = [
    Type::BOOL,
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::TEXT,
    Type::BYTEA,
    Type::CHAR,
    Type::OID,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMP,
    Type::DATE,
    Type::TIME,
    Type::TIMETZ,
    Type::INTERVAL,
    Type::UUID,
    Type::JSONB,
    Type::JSON,
    Type::NUMERIC,
    Type::INET,
    Type::CIDR,
    Type::MACADDR,
    Type::BIT,
    Type::VARBIT,
    Type::POINT,
    Type::BOX,
    Type::PATH,
    Type::PG_LSN,
    Type::TS_VECTOR,
    Type::BOOL_ARRAY,
    Type::INT2_ARRAY,
    Type::INT4_ARRAY,
    Type::INT8_ARRAY,
    Type::FLOAT4_ARRAY,
    Type::FLOAT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::TIMESTAMP_ARRAY,
    Type::DATE_ARRAY,
    Type::UUID_ARRAY,
    Type::JSONB_ARRAY,
    Type::NUMERIC_ARRAY,
];

/// `None`: it is of no type that every server has.
pub(super) fn type_of(value: &(dyn ToSql + Sync)) -> Option<Type> {
    let mut text = BytesMut::new();
    let fits = |candidate: &&Type| {
        text.clear();
        value.to_sql_checked(candidate, &mut text).is_ok()
    };
    CANDIDATES.iter().find(fits).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_types_that_they_stand_for() {
        let cases: [(&(dyn ToSql + Sync), Type); 11] = [
            (&true, Type::BOOL),
            (&1_i16, Type::INT2),
            (&1_i32, Type::INT4),
            (&1_i64, Type::INT8),
            (&1.0_f64, Type::FLOAT8),
            (&"a", Type::TEXT),
            (&"a".to_owned(), Type::TEXT),
            (&None::<i32>, Type::INT4),
            (&vec![1_u8], Type::BYTEA),
            (&vec!["a"], Type::TEXT_ARRAY),
            (&std::time::UNIX_EPOCH, Type::TIMESTAMPTZ),
        ];
        for (value, expected) in cases {
            assert_eq!(type_of(value), Some(expected), "{value:?}");
        }
    }
}
