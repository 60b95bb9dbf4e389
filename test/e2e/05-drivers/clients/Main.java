import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Properties;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

/** pgJDBC: prints facts, one a line, which the test compares. */
public class Main {
  static final String ONE = "SELECT email FROM customers WHERE id = ?";
  static final BufferedReader input = new BufferedReader(new InputStreamReader(System.in));

  static void fact(String name, Object value) {
    System.out.println(name + "\t" + value);
    System.out.flush();
  }

  static Connection connect(String user, String database, String ca, String... more) throws SQLException {
    Properties p = new Properties();
    p.setProperty("user", user);
    p.setProperty("password", System.getenv("PGPASSWORD"));
    p.setProperty("sslmode", "verify-full");
    p.setProperty("sslrootcert", ca);
    for (int i = 0; i < more.length; i += 2) p.setProperty(more[i], more[i + 1]);
    return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + database, p);
  }

  static Connection report(String... more) throws SQLException {
    return connect(System.getenv("PGUSER"), System.getenv("PGDATABASE"), System.getenv("PGSSLROOTCERT"), more);
  }

  interface Work {
    void run() throws SQLException;
  }

  static SQLException failure(Work work) {
    try {
      work.run();
    } catch (SQLException e) {
      return e;
    }
    return new SQLException("no error", "none");
  }

  /** The rows of a result: columns joined by "=", rows by a space. */
  static String text(ResultSet rows, Object... columns) throws SQLException {
    List<String> out = new ArrayList<>();
    while (rows.next()) {
      List<String> row = new ArrayList<>();
      for (Object c : columns) row.add(c instanceof Integer i ? rows.getString(i) : rows.getString((String) c));
      out.add(String.join("=", row.stream().map(String::valueOf).toList()));
    }
    rows.close();
    return String.join(" ", out);
  }

  static String query(Connection c, String sql) throws SQLException {
    try (Statement s = c.createStatement()) {
      ResultSet rows = s.executeQuery(sql);
      Object[] columns = new Object[rows.getMetaData().getColumnCount()];
      for (int i = 0; i < columns.length; i++) columns[i] = i + 1;
      return text(rows, columns);
    }
  }

  static String email(PreparedStatement s) throws SQLException {
    s.setInt(1, 900001);
    return text(s.executeQuery(), 1);
  }

  static void reading(Connection c) throws Exception {
    fact("simple", query(c, "SELECT code, name FROM regions ORDER BY code"));
    try (PreparedStatement s = c.prepareStatement("SELECT id FROM orders WHERE id = ?")) {
      int n = 0, sum = 0;
      for (int i = 1; i <= 20; i++) { // prepared at the server from the fifth on, and then in binary
        s.setInt(1, i);
        for (ResultSet rows = s.executeQuery(); rows.next(); n++) sum += rows.getInt(1);
      }
      fact("prepared", n + " rows, " + sum);
    }
    try (PreparedStatement s = c.prepareStatement("SELECT count(*) FROM orders WHERE id = ANY(?) AND (?::text IS NULL OR status = ?)")) {
      s.setArray(1, c.createArrayOf("int4", new Integer[] {1, 2, 3}));
      s.setNull(2, Types.VARCHAR);
      s.setNull(3, Types.VARCHAR);
      fact("parameters", text(s.executeQuery(), 1));
    }
    fact("masked.text", query(c, "SELECT email, card FROM customers WHERE id = 900001").replace('=', ' '));
    try (PreparedStatement s = c.prepareStatement("SELECT id, email, card FROM customers WHERE id = ?")) {
      s.unwrap(org.postgresql.PGStatement.class).setPrepareThreshold(-1); // binary from the first on
      s.setInt(1, 900001);
      fact("masked.binary", text(s.executeQuery(), 2, 3).replace('=', ' '));
    }
    fact("nulls", query(c, "SELECT card, country FROM customers WHERE id = 900002"));

    c.setAutoCommit(false);
    try (Statement s = c.createStatement()) {
      s.setFetchSize(50);
      int n = 0;
      for (ResultSet rows = s.executeQuery("SELECT id FROM orders ORDER BY id"); rows.next(); ) n++;
      fact("stream", n);
    }
    c.commit();
    StringWriter copied = new StringWriter();
    c.unwrap(PGConnection.class).getCopyAPI().copyOut("COPY (SELECT id FROM orders ORDER BY id) TO STDOUT", copied);
    fact("copy", copied.toString().lines().count());
    c.commit();
  }

  static void refusing(Connection c) throws Exception {
    query(c, "SELECT 1");
    PSQLException no = (PSQLException) failure(() -> query(c, "SELECT salary FROM hr.salaries"));
    ServerErrorMessage m = no.getServerErrorMessage();
    fact("refused.state", no.getSQLState());
    fact("refused.message", m.getMessage());
    fact("refused.detail", m.getDetail());
    fact("refused.hint", m.getHint());
    fact("failed-transaction", failure(() -> query(c, "SELECT 1")).getSQLState());
    c.rollback();
    fact("after-rollback", query(c, "SELECT count(*) FROM regions"));
    c.commit();
    c.setAutoCommit(true);
    fact("server-error", failure(() -> query(c, "SELECT 1 / (id - id) FROM orders WHERE id = 1")).getSQLState());
    try (Statement s = c.createStatement()) {
      s.setQueryTimeout(1);
      fact("cancelled", failure(() -> s.executeQuery("SELECT count(*) FROM generate_series(1, 1000000000)")).getSQLState());
    }
    fact("valid", c.isValid(5));
  }

  static void metadata(Connection c) throws SQLException {
    DatabaseMetaData m = c.getMetaData();
    fact("meta.server", m.getDatabaseProductName() + " " + (m.getDatabaseMajorVersion() >= 15));
    fact("meta.schemas", text(m.getSchemas(null, "sales"), "TABLE_SCHEM"));
    fact("meta.catalogs", text(m.getCatalogs(), "TABLE_CAT").contains("warehouse"));
    fact("meta.tables", text(m.getTables(null, "sales", "%", new String[] {"TABLE"}), "TABLE_NAME", "TABLE_TYPE"));
    fact("meta.columns", text(m.getColumns(null, "sales", "orders", "%"), "COLUMN_NAME", "TYPE_NAME", "IS_NULLABLE"));
    fact("meta.primary", text(m.getPrimaryKeys(null, "sales", "orders"), "COLUMN_NAME"));
    fact("meta.imported", text(m.getImportedKeys(null, "sales", "orders"), "FKCOLUMN_NAME", "PKTABLE_NAME", "PKCOLUMN_NAME"));
    fact("meta.exported", text(m.getExportedKeys(null, "sales", "regions"), "FKTABLE_NAME"));
    fact("meta.indexes", text(m.getIndexInfo(null, "sales", "orders", false, true), "INDEX_NAME"));
    fact("meta.row-id", text(m.getBestRowIdentifier(null, "sales", "orders", DatabaseMetaData.bestRowSession, true), "COLUMN_NAME"));
    fact("meta.types", text(m.getTypeInfo(), "TYPE_NAME").contains("timestamptz"));
    fact("meta.table-types", text(m.getTableTypes(), "TABLE_TYPE").contains("TABLE"));
    fact("meta.functions", text(m.getFunctions(null, "sales", "%"), "FUNCTION_NAME"));
    fact("meta.procedures", text(m.getProcedures(null, "sales", "%"), "PROCEDURE_NAME"));
    fact("meta.privileges", text(m.getTablePrivileges(null, "sales", "regions"), "PRIVILEGE").contains("SELECT"));
    fact("meta.keywords", m.getSQLKeywords().length() > 100);
    fact("meta.name-length", m.getMaxColumnNameLength());
    fact("meta.functions-known", m.getNumericFunctions().contains("abs"));
    try (Statement s = c.createStatement()) {
      ResultSetMetaData r = s.executeQuery("SELECT id, amount, status FROM orders WHERE id = 1").getMetaData();
      fact("meta.result", r.getTableName(1) + " " + r.isNullable(2) + " " + r.isAutoIncrement(1) + " " + r.getPrecision(2) + "," + r.getScale(2) + " " + r.getColumnTypeName(3));
    }
    try (PreparedStatement s = c.prepareStatement("SELECT email, id FROM customers WHERE id = ? AND name = ?")) {
      fact("meta.parameters", s.getParameterMetaData().getParameterTypeName(1) + " " + s.getParameterMetaData().getParameterTypeName(2));
      fact("meta.prepared", s.getMetaData().getColumnName(1) + " " + s.getMetaData().getColumnTypeName(1));
    }
  }

  /** A statement that is prepared at the server, on a connection of its own. */
  record Kept(Connection connection, PreparedStatement statement) {
    static Kept open(boolean autocommit, String... more) throws SQLException {
      Connection c = report(more);
      c.setAutoCommit(autocommit);
      PreparedStatement s = c.prepareStatement(ONE);
      for (int i = 0; i < 8; i++) email(s);
      return new Kept(c, s);
    }

    String again() {
      String[] out = new String[1];
      SQLException e = failure(() -> out[0] = email(statement));
      return out[0] != null ? out[0] : e.getSQLState();
    }
  }

  /** The policy changes under prepared statements, as a table might under a plan. */
  static void changing() throws Exception {
    Kept auto = Kept.open(true);
    Kept never = Kept.open(false);
    Kept conservative = Kept.open(false, "autosave", "conservative");
    Kept always = Kept.open(false, "autosave", "always");
    fact("change-policy", "");
    if (input.readLine() == null) throw new IllegalStateException("the test has gone");
    fact("changed", auto.again());
    fact("changed.in-transaction", never.again() + " " + never.again());
    never.connection.rollback();
    fact("changed.after-rollback", never.again());
    fact("changed.autosave-conservative", conservative.again());
    fact("changed.autosave-always", always.again());
    for (Kept k : List.of(auto, never, conservative, always)) k.connection.close();
  }

  static void shop() throws Exception {
    try (Connection c = connect(System.getenv("SHOP_USER"), "shop", System.getenv("PGSSLROOTCERT"))) {
      for (int threshold : new int[] {0, -1}) { // text, and binary
        try (PreparedStatement s = c.prepareStatement("SELECT mood, cents, flag, big, small, ratio, price, at, day, span, doc, key, raw, tags, moods, secret, salary FROM things WHERE id = ?")) {
          s.unwrap(org.postgresql.PGStatement.class).setPrepareThreshold(threshold);
          s.setInt(1, 1);
          fact(threshold == 0 ? "types" : "types.binary", things(s.executeQuery()));
          s.setInt(1, 2);
          ResultSet rows = s.executeQuery();
          rows.next();
          int nulls = 0;
          for (int i = 1; i <= rows.getMetaData().getColumnCount(); i++) if (rows.getObject(i) == null && rows.wasNull()) nulls++;
          fact(threshold == 0 ? "types.null" : "types.null.binary", nulls + " NULL");
        }
      }
      writing(c);
    }
    try (Connection c = connect(System.getenv("SHOP_USER"), "shop", System.getenv("PGSSLROOTCERT"), "reWriteBatchedInserts", "true", "preferQueryMode", "simple")) {
      fact("simple-mode", query(c, "SELECT id, secret FROM things ORDER BY id"));
    }
  }

  static String things(ResultSet rows) throws SQLException {
    rows.next();
    List<String> wrong = new ArrayList<>();
    Object[] want = {
      "glad", 250, true, 1L << 40, -7, 0.25, new BigDecimal("12.50"), OffsetDateTime.parse("2026-01-02T03:04:05Z"), LocalDate.parse("2026-01-02"),
      "1 day 02:00:00", "{\"a\": [1, 2]}", UUID.fromString("6f1c6a0e-0f4b-4c53-9c1e-3f8f6a3a2b11"),
      new byte[] {0, 1, -1}, new String[] {"a", "b\"c", null}, new String[] {"sad", "glad"}, "***", null,
    };
    for (int i = 0; i < want.length; i++) {
      Object have = want[i] instanceof OffsetDateTime ? rows.getObject(i + 1, OffsetDateTime.class)
          : want[i] instanceof LocalDate ? rows.getObject(i + 1, LocalDate.class)
          : want[i] instanceof String ? rows.getString(i + 1) : rows.getObject(i + 1);
      if (have instanceof Array a) have = a.getArray();
      if (!Objects.deepEquals(have, want[i])) wrong.add(rows.getMetaData().getColumnName(i + 1) + " is " + have);
    }
    return wrong.isEmpty() ? want.length + " equal" : String.join("; ", wrong);
  }

  static int insert(Connection c) throws SQLException {
    try (PreparedStatement s = c.prepareStatement("INSERT INTO notes (driver, n, body) VALUES (?, ?, ?)")) {
      for (int i = 0; i < 10; i++) {
        s.setString(1, "jdbc");
        s.setInt(2, i);
        s.setString(3, "note " + i);
        s.addBatch();
      }
      return Arrays.stream(s.executeBatch()).sum();
    }
  }

  static void writing(Connection c) throws SQLException {
    c.setAutoCommit(false);
    int inserted = insert(c);
    c.rollback();
    insert(c);
    c.commit();
    int updated = 0;
    try (PreparedStatement s = c.prepareStatement("UPDATE notes SET body = ? WHERE driver = ? AND n < 5", new String[] {"n"})) {
      s.setNull(1, Types.VARCHAR);
      s.setString(2, "jdbc");
      s.executeUpdate();
      for (ResultSet keys = s.getGeneratedKeys(); keys.next(); ) updated++;
    }
    try (Statement s = c.createStatement()) {
      fact("write", inserted + " " + updated + " " + s.executeUpdate("DELETE FROM notes WHERE driver = 'jdbc'"));
    }
    c.commit();
    c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
    c.setReadOnly(true);
    fact("isolation", query(c, "SHOW transaction_isolation"));
    c.commit();
  }

  public static void main(String[] args) throws Exception {
    SQLException e = failure(() -> connect(System.getenv("PGUSER"), "warehouse", System.getenv("WRONG_CA")));
    fact("wrong-ca", String.valueOf(e.getCause()).contains("certificat") || e.getMessage().contains("certif") ? "refused" : e);
    try (Connection c = report()) {
      reading(c);
      refusing(c);
      metadata(c);
    }
    changing();
    shop();
  }
}
