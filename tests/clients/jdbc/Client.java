// pgjdbc, the driver of every JVM application and BI tool: text and binary transfer, metadata, batches, COPY.
// Run as a source file: java -cp /usr/share/java/postgresql.jar Client.java

import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.util.PGobject;

public class Client {
    interface Step {
        void run(Connection connection) throws Exception;
    }

    static void ok(String what) {
        System.out.println("ok " + what);
    }

    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }

    static void same(Object expected, Object found) {
        if (!expected.equals(found)) throw new AssertionError("expected " + expected + ", found " + found);
    }

    static Connection connect(Object... more) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        String password = System.getenv("PGPASSWORD");
        if (password != null) properties.setProperty("password", password);
        String authority = System.getenv("PGSSLROOTCERT");
        properties.setProperty("sslmode", authority == null ? "disable" : "verify-full");
        if (authority != null) properties.setProperty("sslrootcert", authority);
        for (int i = 0; i < more.length; i += 2) properties.setProperty((String) more[i], (String) more[i + 1]);
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/"
            + System.getenv("PGDATABASE");
        return DriverManager.getConnection(url, properties);
    }

    static void run(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static void fails(String state, Connection connection, String sql) {
        try {
            run(connection, sql);
        } catch (SQLException error) {
            same(state, error.getSQLState());
            return;
        }
        throw new AssertionError("no error: " + sql);
    }

    static PGobject vector(String text) throws SQLException {
        PGobject object = new PGobject();
        object.setType("vector");
        object.setValue(text);
        return object;
    }

    static void types(Connection connection) throws Exception {
        run(connection, "CREATE TABLE jd_types (i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision, n numeric(10,2), "
            + "t text, b boolean, y bytea, u uuid, d date, ts timestamp, tz timestamptz, j jsonb)");
        OffsetDateTime moment = OffsetDateTime.of(2024, 2, 29, 12, 0, 0, 123_456_000, ZoneOffset.UTC);
        try (PreparedStatement insert = connection.prepareStatement(
                "INSERT INTO jd_types VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?::jsonb)")) {
            insert.setShort(1, (short) -3);
            insert.setInt(2, Integer.MAX_VALUE);
            insert.setLong(3, Long.MIN_VALUE);
            insert.setFloat(4, 1.5f);
            insert.setDouble(5, 0.1);
            insert.setBigDecimal(6, new BigDecimal("12.34"));
            insert.setString(7, "täxt 'q' \\");
            insert.setBoolean(8, true);
            insert.setBytes(9, new byte[] {0, -1, 39});
            insert.setObject(10, UUID.fromString("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"));
            insert.setDate(11, Date.valueOf("2024-02-29"));
            insert.setTimestamp(12, Timestamp.valueOf("2024-02-29 23:59:59.123456"));
            insert.setObject(13, moment);
            insert.setString(14, "{\"a\": [1, null]}");
            same(1, insert.executeUpdate());
        }
        // After five runs the driver prepares by name and asks for binary: both ways must agree.
        try (PreparedStatement select = connection.prepareStatement("SELECT * FROM jd_types")) {
            for (int n = 0; n < 12; n++) {
                try (ResultSet rows = select.executeQuery()) {
                    check(rows.next(), "a row");
                    same((short) -3, rows.getShort(1));
                    same(Integer.MAX_VALUE, rows.getInt(2));
                    same(Long.MIN_VALUE, rows.getLong(3));
                    same(1.5f, rows.getFloat(4));
                    same(0.1, rows.getDouble(5));
                    same(new BigDecimal("12.34"), rows.getBigDecimal(6));
                    same("täxt 'q' \\", rows.getString(7));
                    same(true, rows.getBoolean(8));
                    check(java.util.Arrays.equals(new byte[] {0, -1, 39}, rows.getBytes(9)), "bytea");
                    same(UUID.fromString("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), rows.getObject(10));
                    same(Date.valueOf("2024-02-29"), rows.getDate(11));
                    same(Timestamp.valueOf("2024-02-29 23:59:59.123456"), rows.getTimestamp(12));
                    same(moment, rows.getObject(13, OffsetDateTime.class).withOffsetSameInstant(ZoneOffset.UTC));
                    same("{\"a\": [1, null]}", rows.getString(14));
                }
            }
        }
        try (PreparedStatement nulls = connection.prepareStatement("INSERT INTO jd_types (i4, t, tz) VALUES (?, ?, ?)")) {
            nulls.setNull(1, java.sql.Types.INTEGER);
            nulls.setString(2, null);
            nulls.setTimestamp(3, null);
            same(1, nulls.executeUpdate());
        }
        ok("types in text and binary");
    }

    static void vectors(Connection connection) throws Exception {
        run(connection, "CREATE TABLE jd_items (id bigserial PRIMARY KEY, embedding vector(3))");
        try (PreparedStatement insert = connection.prepareStatement(
                "INSERT INTO jd_items (embedding) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
            for (String text : List.of("[1,1,1]", "[2,2,2]", "[1,1,2]")) {
                insert.setObject(1, vector(text));
                insert.executeUpdate();
            }
            try (ResultSet keys = insert.getGeneratedKeys()) {
                check(keys.next(), "a generated key");
                same(3L, keys.getLong("id"));
            }
        }
        try (PreparedStatement search = connection.prepareStatement(
                "SELECT id, embedding, embedding <-> ? AS d FROM jd_items ORDER BY embedding <-> ? LIMIT ?")) {
            for (int n = 0; n < 8; n++) {
                search.setObject(1, vector("[1,1,1.25]"));
                search.setObject(2, vector("[1,1,1.25]"));
                search.setInt(3, 2);
                try (ResultSet rows = search.executeQuery()) {
                    check(rows.next(), "the nearest");
                    same(1L, rows.getLong("id"));
                    same("[1,1,1]", rows.getString("embedding"));
                    same(0.25, rows.getDouble("d"));
                    check(rows.next() && !rows.next(), "two rows");
                }
            }
        }
        run(connection, "CREATE INDEX ON jd_items USING hnsw (embedding vector_l2_ops)");
        try (Statement statement = connection.createStatement();
             ResultSet rows = statement.executeQuery("SELECT id FROM jd_items ORDER BY embedding <-> '[1,1,2]' LIMIT 1")) {
            check(rows.next(), "a row");
            same(3L, rows.getLong(1));
            same("id", rows.getMetaData().getColumnName(1));
            same("bigserial", rows.getMetaData().getColumnTypeName(1));
        }
        ok("vectors, generated keys, index");
    }

    static void batches(Connection connection) throws Exception {
        run(connection, "CREATE TABLE jd_batch (id int PRIMARY KEY, t text)");
        connection.setAutoCommit(false);
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jd_batch VALUES (?, ?)")) {
            for (int n = 0; n < 1000; n++) {
                insert.setInt(1, n);
                insert.setString(2, "t" + n);
                insert.addBatch();
            }
            same(1000, insert.executeBatch().length);
        }
        connection.commit();
        // A fetch size makes the driver use portals.
        int seen = 0;
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(64);
            try (ResultSet rows = statement.executeQuery("SELECT * FROM jd_batch ORDER BY id")) {
                while (rows.next()) same(seen++, rows.getInt(1));
            }
        }
        same(1000, seen);
        run(connection, "DELETE FROM jd_batch");
        connection.rollback();
        connection.setAutoCommit(true);
        Array ids = connection.createArrayOf("int4", new Integer[] {1, 2, 5000});
        try (PreparedStatement any = connection.prepareStatement("SELECT count(*) FROM jd_batch WHERE id = ANY (?)")) {
            any.setArray(1, ids);
            try (ResultSet rows = any.executeQuery()) {
                check(rows.next(), "a row");
                same(2L, rows.getLong(1));
            }
        }
        ok("batches, fetch size, arrays, rollback");
    }

    static void copies(Connection connection) throws Exception {
        run(connection, "CREATE TABLE jd_copy (id int, embedding vector(2))");
        var copy = connection.unwrap(PGConnection.class).getCopyAPI();
        same(2L, copy.copyIn("COPY jd_copy FROM STDIN", new StringReader("1\t[1,2]\n2\t\\N\n")));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        copy.copyOut("COPY (SELECT * FROM jd_copy ORDER BY id) TO STDOUT", out);
        same("1\t[1,2]\n2\t\\N\n", out.toString(StandardCharsets.UTF_8));
        try {
            copy.copyIn("COPY jd_copy FROM STDIN", new StringReader("3\t[1,2,3]\n"));
            check(false, "a vector of the wrong length was copied");
        } catch (SQLException error) {
            same("22000", error.getSQLState());
        }
        ok("COPY both ways");
    }

    static void metadata(Connection connection) throws Exception {
        DatabaseMetaData data = connection.getMetaData();
        same("PostgreSQL", data.getDatabaseProductName());
        check(data.getDatabaseMajorVersion() >= 15, "major version");
        List<String> tables = new ArrayList<>();
        try (ResultSet rows = data.getTables(null, "public", "jd\\_%", new String[] {"TABLE"})) {
            while (rows.next()) tables.add(rows.getString("TABLE_NAME"));
        }
        same(List.of("jd_batch", "jd_copy", "jd_items", "jd_types"), tables);
        List<String> columns = new ArrayList<>();
        try (ResultSet rows = data.getColumns(null, "public", "jd\\_items", "%")) {
            while (rows.next()) columns.add(rows.getString("COLUMN_NAME") + " " + rows.getString("TYPE_NAME") + " "
                + rows.getString("IS_NULLABLE"));
        }
        same(List.of("id bigserial NO", "embedding vector YES"), columns);
        try (ResultSet rows = data.getPrimaryKeys(null, "public", "jd_items")) {
            check(rows.next(), "a primary key");
            same("jd_items_pkey id 1", rows.getString("PK_NAME") + " " + rows.getString("COLUMN_NAME") + " "
                + rows.getInt("KEY_SEQ"));
            check(!rows.next(), "one column in the primary key");
        }
        List<String> indexes = new ArrayList<>();
        try (ResultSet rows = data.getIndexInfo(null, "public", "jd_items", false, true)) {
            while (rows.next()) indexes.add(rows.getString("INDEX_NAME") + " " + rows.getString("COLUMN_NAME") + " "
                + rows.getBoolean("NON_UNIQUE"));
        }
        same(List.of("jd_items_pkey id false", "jd_items_embedding_idx embedding true"), indexes);
        try (ResultSet rows = data.getSchemas()) {
            boolean found = false;
            while (rows.next()) found |= rows.getString(1).equals("public");
            check(found, "schema public");
        }
        try (PreparedStatement statement = connection.prepareStatement("SELECT id, embedding FROM jd_items WHERE id = ?")) {
            same(2, statement.getMetaData().getColumnCount());
            same("vector", statement.getMetaData().getColumnTypeName(2));
            same("int8", statement.getParameterMetaData().getParameterTypeName(1));
        }
        check(connection.isValid(5), "valid");
        ok("metadata");
    }

    static void errors(Connection connection) throws Exception {
        fails("42P01", connection, "SELECT * FROM nowhere");
        fails("42703", connection, "SELECT nope FROM jd_batch");
        fails("23505", connection, "INSERT INTO jd_batch VALUES (1, 'x')");
        fails("22000", connection, "INSERT INTO jd_items (embedding) VALUES ('[1,2]')");
        fails("22P02", connection, "SELECT '[1,x]'::vector");
        connection.setAutoCommit(false);
        fails("22012", connection, "SELECT 1/0");
        fails("25P02", connection, "SELECT 1");
        connection.rollback();
        connection.setAutoCommit(true);
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.executeQuery("SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 1000000) b");
            check(false, "no timeout");
        } catch (SQLException error) {
            same("57014", error.getSQLState());
        }
        try (Connection simple = connect("preferQueryMode", "simple");
             PreparedStatement statement = simple.prepareStatement("SELECT ?::int + 1, ?")) {
            statement.setInt(1, 41);
            statement.setString(2, "it's");
            try (ResultSet rows = statement.executeQuery()) {
                check(rows.next(), "a row");
                same(42, rows.getInt(1));
                same("it's", rows.getString(2));
            }
        }
        ok("errors, timeout, simple mode");
    }

    // The driver tells the server the JVM's zone when it connects.
    static void zones(Connection outside) throws Exception {
        java.util.TimeZone before = java.util.TimeZone.getDefault();
        OffsetDateTime noon = OffsetDateTime.of(2024, 7, 1, 12, 0, 0, 0, ZoneOffset.UTC);
        try {
            for (String[] zone : new String[][] {
                {"America/New_York", "2024-07-01 08:00:00-04"}, {"Asia/Kolkata", "2024-07-01 17:30:00+05:30"},
                {"GMT+05:30", "2024-07-01 17:30:00+05:30"}
            }) {
                java.util.TimeZone.setDefault(java.util.TimeZone.getTimeZone(zone[0]));
                try (Connection connection = connect();
                     PreparedStatement statement = connection.prepareStatement("SELECT ?::timestamptz, ?::timestamptz::text")) {
                    // The fifth execution and those after it are in binary.
                    for (int i = 0; i < 7; i++) {
                        statement.setObject(1, noon);
                        statement.setTimestamp(2, Timestamp.from(noon.toInstant()));
                        try (ResultSet rows = statement.executeQuery()) {
                            check(rows.next(), "a row");
                            same(noon.toInstant(), rows.getTimestamp(1).toInstant());
                            same(noon.toInstant(), rows.getObject(1, OffsetDateTime.class).toInstant());
                            same(zone[1], rows.getString(2));
                        }
                    }
                }
            }
        } finally {
            java.util.TimeZone.setDefault(before);
        }
        ok("time zones");
    }

    static void clean(Connection connection) throws Exception {
        for (String name : List.of("types", "items", "batch", "copy")) run(connection, "DROP TABLE IF EXISTS jd_" + name);
    }

    public static void main(String[] arguments) throws Exception {
        java.util.TimeZone.setDefault(java.util.TimeZone.getTimeZone("UTC"));
        try (Connection connection = connect()) {
            run(connection, "CREATE EXTENSION IF NOT EXISTS vector");
            List<Step> steps = List.of(Client::clean, Client::types, Client::vectors, Client::batches, Client::copies,
                Client::metadata, Client::errors, Client::zones, Client::clean);
            for (Step step : steps) step.run(connection);
        }
        ok("pgjdbc " + org.postgresql.Driver.getVersion());
    }
}
