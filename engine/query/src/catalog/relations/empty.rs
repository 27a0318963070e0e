//! Catalogs of what Sepal does not have: policies, triggers, publications, foreign tables, …
//!
//! Clients join them and must find the columns; there are no rows.

use super::super::shape::{Relation, no_rows};

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "pg_policy",
        3_256,
        "oid oid, polname name, polrelid oid, polcmd char, polpermissive boolean, polroles oid[], \
         polqual text, polwithcheck text",
        no_rows,
    ),
    Relation::catalog(
        "pg_trigger",
        2_620,
        "oid oid, tgrelid oid, tgparentid oid, tgname name, tgfoid oid, tgtype smallint, tgenabled \
         char, tgisinternal boolean, tgconstrrelid oid, tgconstrindid oid, tgconstraint oid, \
         tgdeferrable boolean, tginitdeferred boolean, tgnargs smallint, tgattr int2vector, tgargs \
         text, tgqual text, tgoldtable name, tgnewtable name",
        no_rows,
    ),
    Relation::catalog(
        "pg_rewrite",
        2_618,
        "oid oid, rulename name, ev_class oid, ev_type char, ev_enabled char, is_instead boolean, \
         ev_qual text, ev_action text",
        no_rows,
    ),
    Relation::catalog("pg_foreign_table", 3_118, "ftrelid oid, ftserver oid, ftoptions text[]", no_rows),
    Relation::catalog(
        "pg_foreign_server",
        1_417,
        "oid oid, srvname name, srvowner oid, srvfdw oid, srvtype text, srvversion text, srvacl \
         text[], srvoptions text[]",
        no_rows,
    ),
    Relation::catalog(
        "pg_foreign_data_wrapper",
        2_328,
        "oid oid, fdwname name, fdwowner oid, fdwhandler oid, fdwvalidator oid, fdwacl text[], \
         fdwoptions text[]",
        no_rows,
    ),
    Relation::catalog(
        "pg_user_mapping",
        1_418,
        "oid oid, umuser oid, umserver oid, umoptions text[]",
        no_rows,
    ),
    Relation::catalog(
        "pg_partitioned_table",
        3_350,
        "partrelid oid, partstrat char, partnatts smallint, partdefid oid, partattrs int2vector, \
         partclass oidvector, partcollation oidvector, partexprs text",
        no_rows,
    ),
    Relation::catalog(
        "pg_publication",
        6_104,
        "oid oid, pubname name, pubowner oid, puballtables boolean, pubinsert boolean, pubupdate \
         boolean, pubdelete boolean, pubtruncate boolean, pubviaroot boolean",
        no_rows,
    ),
    Relation::catalog(
        "pg_publication_rel",
        6_106,
        "oid oid, prpubid oid, prrelid oid, prqual text, prattrs int2vector",
        no_rows,
    ),
    Relation::catalog("pg_publication_namespace", 6_237, "oid oid, pnpubid oid, pnnspid oid", no_rows),
    Relation::catalog(
        "pg_subscription",
        6_100,
        "oid oid, subdbid oid, subskiplsn text, subname name, subowner oid, subenabled boolean, \
         subbinary boolean, substream boolean, subtwophasestate char, subdisableonerr boolean, \
         subconninfo text, subslotname name, subsynccommit text, subpublications text[]",
        no_rows,
    ),
    Relation::catalog(
        "pg_subscription_rel",
        6_102,
        "srsubid oid, srrelid oid, srsubstate char, srsublsn text",
        no_rows,
    ),
    Relation::catalog(
        "pg_statistic_ext",
        3_381,
        "oid oid, stxrelid oid, stxname name, stxnamespace oid, stxowner oid, stxstattarget integer, \
         stxkeys int2vector, stxkind char[], stxexprs text",
        no_rows,
    ),
    Relation::catalog(
        "pg_event_trigger",
        3_466,
        "oid oid, evtname name, evtevent name, evtowner oid, evtfoid oid, evtenabled char, evttags \
         text[]",
        no_rows,
    ),
    Relation::catalog(
        "pg_conversion",
        2_607,
        "oid oid, conname name, connamespace oid, conowner oid, conforencoding integer, contoencoding \
         integer, conproc regproc, condefault boolean",
        no_rows,
    ),
    Relation::catalog(
        "pg_default_acl",
        826,
        "oid oid, defaclrole oid, defaclnamespace oid, defaclobjtype char, defaclacl text[]",
        no_rows,
    ),
    Relation::catalog("pg_db_role_setting", 2_964, "setdatabase oid, setrole oid, setconfig text[]", no_rows),
    Relation::catalog("pg_largeobject_metadata", 2_995, "oid oid, lomowner oid, lomacl text[]", no_rows),
    Relation::catalog(
        "pg_description",
        2_609,
        "objoid oid, classoid oid, objsubid integer, description text",
        no_rows,
    ),
    Relation::catalog("pg_shdescription", 2_396, "objoid oid, classoid oid, description text", no_rows),
    Relation::catalog(
        "pg_shdepend",
        1_214,
        "dbid oid, classid oid, objid oid, objsubid integer, refclassid oid, refobjid oid, deptype \
         char",
        no_rows,
    ),
    Relation::catalog(
        "pg_seclabel",
        3_596,
        "objoid oid, classoid oid, objsubid integer, provider text, label text",
        no_rows,
    ),
    Relation::catalog("pg_shseclabel", 3_592, "objoid oid, classoid oid, provider text, label text", no_rows),
    Relation::catalog(
        "pg_init_privs",
        3_394,
        "objoid oid, classoid oid, objsubid integer, privtype char, initprivs text[]",
        no_rows,
    ),
    Relation::catalog(
        "pg_amop",
        2_602,
        "oid oid, amopfamily oid, amoplefttype oid, amoprighttype oid, amopstrategy smallint, \
         amoppurpose char, amopopr oid, amopmethod oid, amopsortfamily oid",
        no_rows,
    ),
    Relation::catalog(
        "pg_amproc",
        2_603,
        "oid oid, amprocfamily oid, amproclefttype oid, amprocrighttype oid, amprocnum smallint, \
         amproc regproc",
        no_rows,
    ),
    Relation::catalog(
        "pg_transform",
        3_576,
        "oid oid, trftype oid, trflang oid, trffromsql regproc, trftosql regproc",
        no_rows,
    ),
    Relation::catalog("pg_parameter_acl", 6_243, "oid oid, parname text, paracl text[]", no_rows),
    Relation::catalog(
        "pg_policies",
        12_100,
        "schemaname name, tablename name, policyname name, permissive text, roles name[], cmd text, \
         qual text, with_check text",
        no_rows,
    ),
    Relation::catalog(
        "pg_rules",
        12_101,
        "schemaname name, tablename name, rulename name, definition text",
        no_rows,
    ),
    Relation::catalog(
        "pg_user_mappings",
        12_102,
        "umid oid, srvid oid, srvname name, umuser oid, usename name, umoptions text[]",
        no_rows,
    ),
    Relation::catalog(
        "pg_publication_tables",
        12_103,
        "pubname name, schemaname name, tablename name, attnames name[], rowfilter text",
        no_rows,
    ),
    Relation::catalog(
        "pg_prepared_xacts",
        12_107,
        "transaction bigint, gid text, prepared timestamp with time zone, owner name, database name",
        no_rows,
    ),
    Relation::catalog(
        "pg_seclabels",
        12_108,
        "objoid oid, classoid oid, objsubid integer, objtype text, objnamespace oid, objname text, \
         provider text, label text",
        no_rows,
    ),
    Relation::catalog(
        "pg_timezone_names",
        12_109,
        "name text, abbrev text, utc_offset interval, is_dst boolean",
        no_rows,
    ),
    Relation::catalog(
        "pg_replication_slots",
        12_110,
        "slot_name name, plugin name, slot_type text, datoid oid, database name, temporary boolean, \
         active boolean, active_pid integer, xmin bigint, catalog_xmin bigint, restart_lsn text, \
         confirmed_flush_lsn text, wal_status text, safe_wal_size bigint, two_phase boolean",
        no_rows,
    ),
];
