# Reads a table that is cached, a part at a time: `python3 cursors.py PORT DATABASE`.
import sys

import psycopg2

READ = "SELECT id, v FROM cursors WHERE id > %s ORDER BY id"
connection = psycopg2.connect(host="127.0.0.1", port=sys.argv[1], user="postgres", dbname=sys.argv[2])
wanted = [(number, f"row {number}") for number in range(1, 1001)]
for _ in range(10):
    with connection, connection.cursor() as cursor:
        cursor.execute(READ, (0,))
        assert cursor.fetchall() == wanted
    for size in 1, 7, 500, 1000, 5000:
        with connection, connection.cursor(name="parts") as cursor:
            cursor.itersize = size
            cursor.execute(READ, (0,))
            assert list(cursor) == wanted, size
    with connection, connection.cursor(name="moving", scrollable=True) as cursor:
        cursor.execute(READ, (0,))
        assert cursor.fetchmany(10) == wanted[:10]
        cursor.scroll(500, mode="absolute")
        assert cursor.fetchone() == wanted[500]
    with connection.cursor(name="held", withhold=True) as cursor:
        cursor.execute(READ, (0,))
        assert cursor.fetchmany(3) == wanted[:3]
        connection.commit()
        assert cursor.fetchmany(3) == wanted[3:6]
    connection.commit()
print("psycopg2: every part is right")
