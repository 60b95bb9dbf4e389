"""SQLAlchemy's ORM over psycopg2."""
from sqlalchemy import Column, ForeignKey, Integer, Numeric, Text, create_engine, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, declarative_base, joinedload, relationship

from facts import *

Base = declarative_base()


class Customer(Base):
    __tablename__ = "customers"
    id = Column(Integer, primary_key=True)
    name, email, card, country = Column(Text), Column(Text), Column(Text), Column(Text)
    orders = relationship("Order", back_populates="customer")


class Order(Base):
    __tablename__ = "orders"
    id = Column(Integer, primary_key=True)
    customer_id = Column(ForeignKey("customers.id"))
    amount, status = Column(Numeric), Column(Text)
    customer = relationship("Customer", back_populates="orders")


class Salary(Base):
    __tablename__ = "salaries"
    __table_args__ = {"schema": "hr"}
    employee, salary = Column(Text, primary_key=True), Column(Integer)


class Note(Base):
    __tablename__ = "notes"
    driver, n, body = Column(Text, primary_key=True), Column(Integer, primary_key=True), Column(Text)


def report():
    with Session(create_engine("postgresql+psycopg2://")) as s:
        some = select(Order).options(joinedload(Order.customer)).where(Order.status.in_(["open", "paid"])).order_by(Order.id).limit(3)
        for i, o in enumerate(s.scalars(some)):
            fact(f"order.{i}", f"{o.id} {o.status} {o.customer.email}")
        groups = select(Customer.country, func.count()).join(Order.customer).where(Customer.country.is_not(None))
        fact("countries", len(s.execute(groups.group_by(Customer.country).having(func.count() > 5).order_by(Customer.country)).all()))
        c = s.get(Customer, 900001)
        fact("masked", f"{c.email} {c.card}")
        fact("orders", len(c.orders))
        found = select(func.count()).select_from(Customer).where(Customer.email == "canary@leak.example")
        fact("found by a masked value", s.scalar(found))
        try:
            s.scalars(select(Salary)).all()
        except ProgrammingError as e:
            fact("refused", f"{e.orig.pgcode} {e.orig.diag.message_primary}")


def shop():
    engine = create_engine(f"postgresql+psycopg2://{ENV['SHOP_USER']}@/shop", executemany_mode="values")
    ours = Note.driver == "orm"
    with Session(engine) as s:
        s.add_all([Note(driver="orm", n=n, body=f"note {n}") for n in range(10)])
        s.commit()
        fact("created", s.scalar(select(func.count()).select_from(Note).where(ours)))
        again = insert(Note).values(driver="orm", n=3, body="again")
        s.execute(again.on_conflict_do_update(index_elements=["driver", "n"], set_={"body": again.excluded.body}))
        changed = s.execute(update(Note).where(ours, Note.n < 3).values(body=None).returning(Note.n).execution_options(synchronize_session=False))
        fact("updated", len(changed.all()))
        s.commit()
        fact("upserted", s.get(Note, ("orm", 3)).body)
        s.execute(delete(Note).where(ours).execution_options(synchronize_session=False))
        with s.begin_nested():  # a savepoint
            s.add(Note(driver="orm", n=99))
        s.rollback()
        fact("undone", str(s.get(Note, ("orm", 99)) is None).lower())
        fact("deleted", s.execute(delete(Note).where(ours).execution_options(synchronize_session=False)).rowcount)
        s.commit()


report()
shop()
