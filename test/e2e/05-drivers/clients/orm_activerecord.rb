# Ruby on Rails' ORM over the driver pg.
require "active_record"

ENV["RAILS_ENV"] = nil

class Customer < ActiveRecord::Base
  has_many :orders
end

class Order < ActiveRecord::Base
  belongs_to :customer
end

class Salary < ActiveRecord::Base
  self.table_name = "hr.salaries"
end

class Note < ActiveRecord::Base
  self.primary_key = nil
end

def fact(name, value) = puts("#{name}\t#{value}")

def connect(**own)
  ActiveRecord::Base.establish_connection(adapter: "postgresql", database: "warehouse", **own)
end

def report
  some = Order.includes(:customer).where(status: %w[open paid]).order(:id).limit(3)
  some.select(:id, :status, :customer_id).each_with_index { |o, i| fact("order.#{i}", "#{o.id} #{o.status} #{o.customer.email}") }
  groups = Customer.joins(:orders).where.not(country: nil).group(:country).having("count(*) > 5").order(:country)
  fact("countries", groups.count.size)
  c = Customer.find(900001)
  fact("masked", "#{c.email} #{c.card}")
  fact("orders", c.orders.count)
  fact("found by a masked value", Customer.where(email: "canary@leak.example").count)
  begin
    Salary.pluck(:salary)
  rescue ActiveRecord::StatementInvalid => e
    fact("refused", "#{e.cause.result.error_field(PG::PG_DIAG_SQLSTATE)} #{e.cause.result.error_field(PG::PG_DIAG_MESSAGE_PRIMARY)}")
  end
end

def shop
  ours = Note.where(driver: "activerecord")
  10.times { |n| Note.create!(driver: "activerecord", n: n, body: "note #{n}") }
  fact("created", ours.count)
  Note.upsert_all([{ driver: "activerecord", n: 3, body: "again" }], unique_by: %i[driver n])
  fact("updated", ours.where("n < 3").update_all(body: nil))
  fact("upserted", ours.find_by(n: 3).body)
  Note.transaction do
    ours.delete_all
    Note.transaction(requires_new: true) { Note.create!(driver: "activerecord", n: 99) } # a savepoint
    raise ActiveRecord::Rollback
  end
  fact("undone", !ours.exists?(n: 99))
  fact("deleted", ours.delete_all)
end

connect
report
connect(database: "shop", username: ENV.fetch("SHOP_USER"))
shop
