"""Runs a statement by ADBC's Flight SQL driver and prints its rows as JSON: statement.py ADDRESS TOKEN SQL."""

import json
import sys

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi

address, token, sql = sys.argv[1:]
header = adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value
options = {header: f"Bearer {token}"} if token else {}
with adbc_driver_flightsql.dbapi.connect(f"grpc://{address}", db_kwargs=options, autocommit=True) as connection:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        print(json.dumps(cursor.fetch_arrow_table().to_pylist()))
