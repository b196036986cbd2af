"""What alarm.sh does with files that the shell does badly."""
import os
import random
import sqlite3
import sys


def log(path, day):
    with open(path, "w") as f:
        for i in range(40000):
            f.write(f"2026-01-{day:02} {i // 3600:02}:{i // 60 % 60:02}:{i % 60:02} worker {random.randrange(64)} served /item/{random.randrange(10**6)} in {random.random():.3f} s\n")


def sqlite(path, step):
    db = sqlite3.connect(path)
    db.execute("create table if not exists t (id integer primary key, name text, body blob)")
    if step == "text":
        db.executemany("insert into t (name, body) values (?, ?)", ((f"name {i}", f"the body of row {i} " * 20) for i in range(20000)))
    elif step == "blobs":
        db.executemany("insert into t (name, body) values (?, ?)", ((f"blob {i}", os.urandom(2000)) for i in range(2000)))
    elif step == "update":
        db.execute("update t set name = 'changed ' || name where id % 3 = 0")
    db.commit()
    if step == "vacuum":
        db.execute("delete from t where id % 2 = 0")
        db.commit()
        db.execute("vacuum")
    db.close()


def encrypt(top, way):
    for dir, _, names in os.walk(top):
        if ".snapshots" in dir:
            continue
        for name in names:
            path = os.path.join(dir, name)
            if os.path.islink(path):
                continue
            with open(path, "rb") as f:
                b = bytearray(f.read())
            if way == "parts":
                for i in range(0, len(b), 64):
                    b[i:i + 16] = os.urandom(len(b[i:i + 16]))
            else:
                b = os.urandom(len(b)) + (b"" if way == "place" else os.urandom(256))
            with open(path, "r+b") as f:
                f.write(b)
            if way == "ending":
                os.rename(path, path + ".locked")
            elif way == "chance":
                os.rename(path, os.path.join(dir, "%016x" % random.getrandbits(64)))


if __name__ == "__main__":
    what, path, how = sys.argv[1:]
    {"log": lambda p, day: log(p, int(day)), "sqlite": sqlite, "encrypt": encrypt}[what](path, how)
