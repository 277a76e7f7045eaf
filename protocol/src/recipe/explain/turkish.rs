//! Words in Turkish.

use std::fmt::{self, Write as _};

use crate::recipe::{
    Column, ColumnType, Engine, Measure, MeasureKind, Noise, Prepare, Recipe, Script, Source,
};

pub(super) fn write(recipe: &Recipe, out: &mut String) -> fmt::Result {
    writeln!(out, "{}", recipe.title)?;
    let owners: Vec<&str> = recipe.owners.iter().map(|owner| owner.as_str()).collect();
    writeln!(out, "\nYalnızca gizli sanal makinenin içinde okunanlar ({}):", owners.join(", "))?;
    recipe.sources.iter().try_for_each(|source| writeln!(out, "  {}", source_words(source)))?;
    let unit = recipe.column_name(recipe.privacy.unit);
    match &recipe.prepare {
        None => writeln!(
            out,
            "Bir kişi, bir sahibin verisindeki bir {unit} değeridir ve bir kez sayılır; diğer satırları yok sayılır."
        )?,
        Some(prepare) => {
            writeln!(
                out,
                "Bir kişi, tüm sahiplerde aynı olan bir {unit} değeridir ve sonunda en çok bir satır olur."
            )?;
            writeln!(
                out,
                "Kimlikler dışarı çıkmaz: birleştirmeden önce {unit} yerine bu çalıştırmaya özgü bir takma ad konur."
            )?;
            prepare_words(recipe, prepare, out)?;
        }
    }
    if !recipe.keys.is_empty() {
        writeln!(out, "\nVeri ne olursa olsun bu tarifle sabitlenmiş gruplar:")?;
        recipe.keys.iter().try_for_each(|key| {
            let column = recipe.column_name(key.column);
            writeln!(out, "  {} ({column} sütunundan): {}", key.name, key.labels.join(", "))
        })?;
    }
    engine(recipe, out)?;
    writeln!(out, "\nGürültü eklenerek çıkanlar; bunların dışında hiçbir şey çıkmaz:")?;
    recipe.measures.iter().try_for_each(|measure| writeln!(out, "  {}", measure_words(recipe, measure)))?;
    if let Some(gpu) = recipe.gpu {
        let (count, architecture) = (gpu.count, gpu.architecture);
        writeln!(out, "Yalnızca {architecture} mimarisinde, doğrulanmış {count} NVIDIA GPU ile çalışır.")?;
    }
    let least = recipe.minimum_group_size;
    writeln!(out, "{least} kişiden azını (gürültülü sayımla) kapsayan sayılar gizlenir.")?;
    let (run, budget) = (recipe.privacy.epsilon_per_run, recipe.privacy.epsilon_budget);
    let (delta, delta_budget) = (recipe.privacy.delta_per_run, recipe.privacy.delta_budget);
    match recipe.privacy.noise {
        Noise::Laplace => writeln!(
            out,
            "\nBir çalıştırmanın bedeli epsilon {run}, tüm çalıştırmaların toplamı en çok {budget}; delta 0."
        ),
        Noise::Gaussian => writeln!(
            out,
            "\nGürültü Gauss dağılımlıdır. Bir çalıştırmanın bedeli epsilon {run} ve delta {delta}, tüm \
             çalıştırmaların toplamı en çok epsilon {budget} ve delta {delta_budget}."
        ),
    }
}

fn prepare_words(recipe: &Recipe, prepare: &Prepare, out: &mut String) -> fmt::Result {
    for table in &prepare.tables {
        writeln!(
            out,
            "Tarifte {} satırlık herkese açık bir tablo vardır: {}.",
            table.rows.len(),
            table.name
        )?;
    }
    writeln!(
        out,
        "\nÖnce tüm sahiplerin satırlarından, kişileri ayrı tuttuğu kanıtlanması gereken SQL ile bir kişi tablosu kurar:"
    )?;
    for step in &prepare.steps {
        writeln!(out, "  {}:", step.name)?;
        step.sql.lines().try_for_each(|line| writeln!(out, "    {line}"))?;
    }
    let columns: Vec<String> = recipe.columns.iter().map(column_words).collect();
    writeln!(out, "  sonuç sütunları: {}", columns.join("; "))?;
    writeln!(
        out,
        "Sonucu, satırlar ne olursa olsun, başlangıçtan tam {} s sonra kullanılır.",
        prepare.seconds
    )
}

fn engine(recipe: &Recipe, out: &mut String) -> fmt::Result {
    let Engine::Python(python) = &recipe.engine else { return Ok(()) };
    let script = match &python.script {
        Script::Text(text) => format!("bu dosyadaki {} satırlık", text.lines().count()),
        Script::Sha256(hash) => format!("konteyner imajındaki (SHA-256 {hash})"),
    };
    writeln!(out, "\nÇalışan kod: {script} Python betiği.")?;
    writeln!(
        out,
        "Ağ, disk ve günlük erişimi yoktur; belleği {} MiB'dir ve sonucu tam {} s sonra açıklanır.",
        python.memory_mib, python.seconds
    )?;
    writeln!(
        out,
        "Satırları, {} yerine takma adlarla görür; bir kişinin yayılan sayıları ne kadar değiştirebileceğini yazarı \
         beyan eder, kanıtlanmış değildir. Betiği okuyun: kötü niyetli bir betik bir çıktıya en çok {} bit gizleyebilir.",
        recipe.column_name(recipe.privacy.unit),
        recipe.hidden_bits()
    )
}

fn measure_words(recipe: &Recipe, measure: &Measure) -> String {
    let keys = recipe.key_names(measure);
    let by =
        if keys.is_empty() { String::new() } else { format!(", {} gruplarına göre", keys.join(" ve ")) };
    let unit = measure.unit.as_ref().map_or(String::new(), |unit| format!(" {unit}"));
    let cells = recipe.cell_count(measure);
    let cost = measure.kind.epsilon().unwrap_or_default();
    let column = |index: &usize| recipe.column_name(*index);
    let what = match &measure.kind {
        MeasureKind::Count { .. } => format!("kişi sayısı{by}"),
        MeasureKind::Proportion { test, over, .. } => {
            let (over, column) = (recipe.measure_name(*over), column(&test.column));
            format!("{over} içinde {column} {} {} olanların oranı{by}", test.op, test.value)
        }
        MeasureKind::Mean { column: index, bounds, .. } => {
            format!("{} ortalaması ({} ile {}{unit} arası){by}", column(index), bounds.lower, bounds.upper)
        }
        MeasureKind::Variance { column: index, bounds, .. } => {
            format!("{} varyansı ({} ile {}{unit} arası){by}", column(index), bounds.lower, bounds.upper)
        }
        MeasureKind::Quantile { column: index, bounds, probability, .. } => {
            let (lower, upper) = (bounds.lower, bounds.upper);
            format!("{} için {probability} kantili ({lower} ile {upper}{unit} arası){by}", column(index))
        }
        MeasureKind::Sum { column: index, bounds, .. } => {
            format!(
                "{} toplamı (her biri {} ile {}{unit} arası){by}",
                column(index),
                bounds.lower,
                bounds.upper
            )
        }
        MeasureKind::Histogram { column: index, bins, .. } => {
            format!("{} aralıklarındaki kişi sayısı{unit} ({}){by}", column(index), bins.join(", "))
        }
        MeasureKind::LinearRegression { target, .. } => {
            format!("{} için doğrusal regresyon ({}){by}", column(target), recipe.feature_names(measure))
        }
        MeasureKind::LogisticRegression { test, .. } => {
            let (column, features) = (column(&test.column), recipe.feature_names(measure));
            format!("{column} {} {} için lojistik regresyon ({features}){by}", test.op, test.value)
        }
        MeasureKind::Emitted { bounds, sensitivity, .. } => {
            format!(
                "betiğin yaydığı sayılar (her biri {} ile {}{unit} arası), bir kişi bunları {} adımıyla en çok \
                 {sensitivity} adım değiştirir",
                bounds.lower, bounds.upper, measure.round_to
            )
        }
    };
    format!("{}: {what}; {cells} sayı, {} katına yuvarlanır, epsilon {cost}", measure.name, measure.round_to)
}

fn source_words(source: &Source) -> String {
    let owners: Vec<&str> = source.owners.iter().map(|owner| owner.as_str()).collect();
    let of = if owners.is_empty() { String::new() } else { format!(", yalnızca {}", owners.join(", ")) };
    column_words(&source.column) + &of
}

fn column_words(column: &Column) -> String {
    let kind = match column.kind {
        ColumnType::Int64 => "tam sayı",
        ColumnType::Float64 { .. } => "ondalık sayı",
        ColumnType::Utf8 => "metin",
        ColumnType::Bool => "doğru/yanlış",
    };
    let mut words = format!("{} ({kind})", column.name);
    if column.nullable {
        words.push_str(", boş olabilir");
    }
    if !column.missing_values.is_empty() {
        let values: Vec<String> = column.missing_values.iter().map(ToString::to_string).collect();
        words.push_str(&format!(", {} boş demektir", values.join(", ")));
    }
    words
}
