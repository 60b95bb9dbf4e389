import java.sql.*;
import java.util.Properties;

/** Every call of DatabaseMetaData that lists something. */
public class Metadata {
  static void show(String what, ResultSet rows) throws SQLException {
    int n = rows.getMetaData().getColumnCount();
    while (rows.next()) {
      StringBuilder b = new StringBuilder(what);
      for (int i = 1; i <= n; i++) b.append(' ').append(rows.getString(i));
      System.out.println(b);
    }
  }

  public static void main(String[] args) throws Exception {
    Properties p = new Properties();
    p.put("user", System.getenv("PGUSER"));
    p.put("password", System.getenv("PGPASSWORD"));
    p.put("sslmode", "verify-full");
    p.put("sslrootcert", System.getenv("PGSSLROOTCERT"));
    p.put("currentSchema", "sales"); // as tools are configured, and as the resource holds it
    String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
    try (Connection c = DriverManager.getConnection(url, p)) {
      DatabaseMetaData m = c.getMetaData();
      show("catalog", m.getCatalogs());
      show("schema", m.getSchemas());
      show("schema", m.getSchemas(null, "%"));
      show("type", m.getTableTypes());
      show("table", m.getTables(null, null, "%", null));
      show("table", m.getTables(null, "sales", "%", new String[] {"TABLE", "VIEW", "MATERIALIZED VIEW", "PARTITIONED TABLE", "FOREIGN TABLE", "SEQUENCE", "INDEX", "TYPE"}));
      show("column", m.getColumns(null, null, "%", "%"));
      show("column", m.getColumns(null, "sales", "orders", "%"));
      for (String t : new String[] {"orders", "customers", "regions", "salaries"}) {
        String s = t.equals("salaries") ? "h" + "r" : "sales";
        show("primary", m.getPrimaryKeys(null, s, t));
        show("imported", m.getImportedKeys(null, s, t));
        show("exported", m.getExportedKeys(null, s, t));
        show("index", m.getIndexInfo(null, s, t, false, false));
        show("best", m.getBestRowIdentifier(null, s, t, DatabaseMetaData.bestRowSession, true));
        show("version", m.getVersionColumns(null, s, t));
        show("privilege", m.getTablePrivileges(null, s, t));
        show("column privilege", m.getColumnPrivileges(null, s, t, "%"));
      }
      show("cross", m.getCrossReference(null, "sales", "customers", null, "sales", "orders"));
      show("function", m.getFunctions(null, null, "%"));
      show("function column", m.getFunctionColumns(null, "sales", "%", "%"));
      show("procedure", m.getProcedures(null, null, "%"));
      show("procedure column", m.getProcedureColumns(null, "sales", "%", "%"));
      show("type", m.getTypeInfo());
      show("user type", m.getUDTs(null, null, "%", null));
      show("client info", m.getClientInfoProperties());
      System.out.println(m.getSQLKeywords() + m.getMaxColumnNameLength() + m.getDatabaseProductVersion() + m.getUserName() + m.getDefaultTransactionIsolation());
      System.out.println(m.getNumericFunctions() + m.getStringFunctions() + m.getSystemFunctions() + m.getTimeDateFunctions());
      System.out.println(c.getSchema() + c.getCatalog());
    }
  }
}
