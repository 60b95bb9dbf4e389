"""What SQLAlchemy's inspector, reflection and automap see, and a report by its ORM."""
from sqlalchemy import MetaData, create_engine, func, inspect, select
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.orm import Session

engine = create_engine("postgresql+psycopg2://")
i = inspect(engine)
print(i.get_schema_names(), i.default_schema_name)
for schema in ("sales", "hr", "public", "audit"):
    print(i.get_table_names(schema), i.get_view_names(schema), i.get_sequence_names(schema), i.get_enums(schema))
    print(i.get_foreign_table_names(schema) if hasattr(i, "get_foreign_table_names") else "")
for table in ("orders", "customers", "regions"):
    for ask in (
        i.get_columns, i.get_pk_constraint, i.get_foreign_keys, i.get_indexes, i.get_unique_constraints,
        i.get_check_constraints, i.get_table_comment, i.get_table_options,
    ):
        print(table, ask.__name__, ask(table, schema="sales"))
print(i.has_table("orders", "sales"), i.has_table("salaries"[:3], "sales"))

metadata = MetaData()
metadata.reflect(engine, schema="sales")
orders = metadata.tables["sales.orders"]
print(sorted(metadata.tables), list(orders.c.keys()), orders.foreign_keys)

Base = automap_base(metadata=metadata)
Base.prepare()
Order, Customer = Base.classes.orders, Base.classes.customers
with Session(engine) as s:
    print(s.get(Order, 7).status, s.get(Order, 7).customer_email)
    q = select(Customer.country, func.count(Order.id)).join(Order, Order.customer_id == Customer.id).group_by(Customer.country).order_by(Customer.country)
    print(s.execute(q).all())
    print([c.email for c in s.scalars(select(Customer).order_by(Customer.id).limit(3))])
    print(len(s.scalars(select(Order).where(Order.status.in_(["open", "paid"])).limit(5)).all()))
