// Reads a table that is cached, a part at a time: `java -cp postgresql.jar Cursors.java PORT DATABASE`.
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;

class Cursors {
    static final String READ = "SELECT id, v FROM cursors WHERE id > ? ORDER BY id";

    /** Runs the statement and checks every row. */
    static void read(Connection connection, int fetchSize, int rows) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(READ)) {
            statement.setFetchSize(fetchSize);
            statement.setInt(1, 0);
            int id = 0;
            try (ResultSet found = statement.executeQuery()) {
                while (found.next()) {
                    id++;
                    if (found.getInt(1) != id || !found.getString(2).equals("row " + id)) {
                        throw new SQLException("row " + id + " is wrong: " + found.getInt(1));
                    }
                }
            }
            if (id != rows) {
                throw new SQLException(id + " rows with a fetch size of " + fetchSize);
            }
        }
    }

    public static void main(String[] args) throws SQLException {
        String url = "jdbc:postgresql://127.0.0.1:" + args[0] + "/" + args[1];
        try (Connection connection = DriverManager.getConnection(url, "postgres", "")) {
            for (int run = 0; run < 10; run++) {
                connection.setAutoCommit(true);
                read(connection, 0, 1000);
                // The driver fetches parts in a transaction only.
                connection.setAutoCommit(false);
                for (int fetchSize : new int[] {1, 7, 500, 1000, 5000}) {
                    read(connection, fetchSize, 1000);
                }
                connection.commit();
            }
        }
        System.out.println("JDBC: every part is right");
    }
}
